package policy

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// rule is one policy of a bundle, checked.
type rule struct {
	id     string
	reason string // @reason, else the id
	level  Level  // of a permit with @approval
	forbid bool
	policy *cedar.Policy
}

// rules are the policies of a bundle by id.
type rules map[cedar.PolicyID]*rule

// All makes rules what cedar.Authorize evaluates.
func (rs rules) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for id, r := range rs {
			if !yield(id, r.policy) {
				return
			}
		}
	}
}

// maxDepth bounds how deep brackets in a policy nest: Cedar's parser recurses.
const maxDepth = 64

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// add parses one *.cedar file into rs. A policy that does not fit the schema, has no id of its own or an annotation
// that is not known makes the file bad: a mistyped @approval must not turn a question into a yes.
func (rs rules) add(file string, text []byte, v *validate.Validator) error {
	if err := readable(text); err != nil {
		return invalid(file, err.Error())
	}
	list, err := cedar.NewPolicyListFromBytes(file, text)
	if err != nil {
		return invalid(file, err.Error())
	}
	for _, p := range list {
		r, err := newRule(p)
		if err == nil {
			err = v.Policy("", (*ast.Policy)(p.AST()))
		}
		if err != nil {
			reason := strings.ReplaceAll(err.Error(), "\n", "; ")
			return invalid(file, fmt.Sprintf("the policy in line %d: %s", p.Position().Line, reason))
		}
		id := cedar.PolicyID(r.id)
		if other, ok := rs[id]; ok {
			at := other.policy.Position()
			return invalid(file, fmt.Sprintf("the policy in line %d has the same @id %q as the one in %s, line %d",
				p.Position().Line, r.id, at.Filename, at.Line))
		}
		rs[id] = r
	}
	return nil
}

func newRule(p *cedar.Policy) (*rule, error) {
	r := &rule{policy: p, forbid: p.Effect() == cedar.Forbid}
	for _, a := range p.AST().Annotations {
		value := string(a.Value)
		switch a.Key {
		case "id":
			r.id = value
		case "reason":
			if value == "" || len(value) > 200 || strings.ContainsFunc(value, func(c rune) bool { return !unicode.IsPrint(c) }) {
				return nil, fmt.Errorf("@reason must be a sentence of at most 200 bytes in one line")
			}
			r.reason = value
		case "approval":
			r.level = Level(value)
			if r.forbid {
				return nil, fmt.Errorf("@approval belongs on a permit, not on a forbid")
			}
			if r.level != LevelConfirm && r.level != LevelAuthenticate {
				return nil, fmt.Errorf("@approval(%q) is unknown; there are %q and %q", value, LevelConfirm, LevelAuthenticate)
			}
		default:
			return nil, fmt.Errorf("the annotation @%s is unknown; there are @id, @reason and @approval", a.Key)
		}
	}
	if !idPattern.MatchString(r.id) {
		return nil, fmt.Errorf("it needs an @id of lower-case letters, digits, - and _, at most 64")
	}
	if r.reason == "" {
		r.reason = r.id
	}
	return r, nil
}

// readable refuses what would make a policy look other than it is, or its parser recurse without end.
func readable(text []byte) error {
	line, depth := 1, 0
	for _, c := range string(text) {
		switch {
		case c == '\n':
			line++
		case c == unicode.ReplacementChar:
			return fmt.Errorf("line %d: a byte that is not UTF-8", line)
		case c != '\t' && unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return fmt.Errorf("line %d: the hidden character %U", line, c)
		case strings.ContainsRune("([{", c):
			depth++
		case strings.ContainsRune(")]}", c):
			depth--
		}
		if depth > maxDepth {
			return fmt.Errorf("line %d: brackets nest deeper than %d", line, maxDepth)
		}
	}
	return nil
}

// cedarFiles are the names of the policies among files, sorted.
func cedarFiles(files map[string][]byte) (names []string) {
	for name := range files {
		if strings.HasSuffix(name, ".cedar") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
