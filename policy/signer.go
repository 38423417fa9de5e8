package policy

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// Signer is one line of an allowed_signers file.
type Signer struct {
	Principals  string // for people: Load has no identity to compare
	Key         ssh.PublicKey
	Namespaces  []string  // patterns; none: all namespaces
	ValidAfter  time.Time // zero: always
	ValidBefore time.Time // zero: for ever; a key is revoked by a time that is past
}

// maxSigners bounds an allowed_signers file, in bytes.
const maxSigners = 256 << 10

// minRSA is the least length of an RSA key, in bits: what ssh-keygen made by default from 2019 on, and NIST SP 800-57
// accepts beyond 2030.
const minRSA = 3072

// ParseSigners reads an allowed_signers file (ssh-keygen(1)), more strictly than OpenSSH does: times must end in Z, as
// the time zone of a role is not the administrator's; a key stands in one line only, so that one valid-before revokes
// it; certificate authorities, DSA and short RSA keys are refused; and every line must be understood.
func ParseSigners(b []byte) ([]Signer, error) {
	if len(b) > maxSigners {
		return nil, fmt.Errorf("it is bigger than %d bytes", maxSigners)
	}
	var signers []Signer
	for i, line := range strings.Split(string(b), "\n") {
		if strings.ContainsFunc(line, func(c rune) bool { return c != '\t' && !unicode.IsPrint(c) }) {
			return nil, fmt.Errorf("line %d: a character that cannot be seen", i+1)
		}
		line = strings.Trim(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSigner(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		for _, other := range signers {
			if bytes.Equal(other.Key.Marshal(), s.Key.Marshal()) {
				return nil, fmt.Errorf("line %d: this key stands in an earlier line already", i+1)
			}
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// keyTypes are those that may sign, sk-… being FIDO keys, which must have been touched.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA,
}

func parseSigner(line string) (Signer, error) {
	var s Signer
	var rest string
	s.Principals, rest = field(line)
	if strings.ContainsAny(s.Principals, `"\`) || slices.Contains(strings.Split(s.Principals, ","), "") {
		return s, errors.New("the first field must be principals, separated by commas")
	}
	if rest == "" {
		return s, errors.New("a key must follow the principals")
	}
	kind, after := field(rest)
	if !slices.Contains(keyTypes, kind) {
		var err error
		if rest, err = s.options(rest); err != nil {
			return s, err
		}
		if kind, after = field(rest); !slices.Contains(keyTypes, kind) {
			return s, fmt.Errorf("%.40q is no type of key that may sign; there are %s", kind, strings.Join(keyTypes, ", "))
		}
	}
	blob64, _ := field(after) // a comment may follow
	blob, err := base64.StdEncoding.Strict().DecodeString(blob64)
	if err != nil {
		return s, errors.New("the key is not base64")
	}
	if s.Key, err = ssh.ParsePublicKey(blob); err != nil {
		return s, fmt.Errorf("the key cannot be read: %w", err)
	}
	if s.Key.Type() != kind || !bytes.Equal(s.Key.Marshal(), blob) {
		return s, fmt.Errorf("the key is not a plain one of type %s", kind)
	}
	return s, acceptable(s.Key)
}

func acceptable(k ssh.PublicKey) error {
	if !slices.Contains(keyTypes, k.Type()) {
		return fmt.Errorf("keys of type %s may not sign", k.Type())
	}
	if k.Type() == ssh.KeyAlgoRSA {
		r, ok := k.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
		if !ok || r.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key must have %d bits or more; better use ssh-keygen -t ed25519", minRSA)
		}
	}
	return nil
}

// field cuts off what comes before the first blank.
func field(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// options parses NAME="VALUE",… and returns what follows the blank behind it.
func (s *Signer) options(text string) (rest string, err error) {
	seen := map[string]bool{}
	for {
		i := strings.IndexAny(text, "=, \t")
		if i < 0 {
			i = len(text)
		}
		name, value := strings.ToLower(text[:i]), ""
		text = text[i:]
		if strings.HasPrefix(text, "=") {
			var ok bool
			if value, text, ok = strings.Cut(strings.TrimPrefix(text, `="`), `"`); !ok || value == "" || value[0] == '=' {
				return "", fmt.Errorf(`the option %.40q must be followed by ="VALUE"`, name)
			}
		}
		if seen[name] {
			return "", fmt.Errorf("the option %.40q stands twice", name)
		}
		seen[name] = true
		if err := s.option(name, value); err != nil {
			return "", err
		}
		switch {
		case strings.HasPrefix(text, ","):
			text = text[1:]
		case strings.HasPrefix(text, " "), strings.HasPrefix(text, "\t"):
			if !s.ValidBefore.IsZero() && !s.ValidBefore.After(s.ValidAfter) {
				return "", errors.New("valid-before is not after valid-after")
			}
			return strings.TrimLeft(text, " \t"), nil
		default:
			return "", fmt.Errorf("a comma or a blank must follow the option %.40q", name)
		}
	}
}

func (s *Signer) option(name, value string) (err error) {
	switch name {
	case "namespaces":
		s.Namespaces = strings.Split(value, ",")
		if value == "" || slices.Contains(s.Namespaces, "") {
			return errors.New(`namespaces must be like namespaces="closedpaw-policy"`)
		}
	case "valid-after":
		s.ValidAfter, err = timestamp(name, value)
	case "valid-before":
		s.ValidBefore, err = timestamp(name, value)
	case "cert-authority":
		return errors.New("cert-authority: certificates are not accepted; list the keys themselves")
	default:
		return fmt.Errorf("the option %.40q is unknown; there are namespaces, valid-after and valid-before", name)
	}
	return err
}

func timestamp(name, value string) (time.Time, error) {
	const layout = "20060102150405"
	digits, utc := strings.CutSuffix(value, "Z")
	if utc {
		for _, n := range []int{8, 12, 14} {
			if t, err := time.Parse(layout[:n], digits); err == nil && len(digits) == n {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%s must be YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ, in UTC", name)
}

// find returns the signer with this key, if it may sign a policy now.
func find(allowed []Signer, key ssh.PublicKey, now time.Time) (Signer, error) {
	fingerprint := ssh.FingerprintSHA256(key)
	blob := key.Marshal()
	i := slices.IndexFunc(allowed, func(s Signer) bool { return bytes.Equal(s.Key.Marshal(), blob) })
	if i < 0 {
		return Signer{}, fmt.Errorf("the key %s is not in allowed_signers", fingerprint)
	}
	s := allowed[i]
	who := fmt.Sprintf("the key %s of %.80s", fingerprint, s.Principals)
	switch {
	case len(s.Namespaces) > 0 && !matchList(s.Namespaces, Namespace):
		return Signer{}, fmt.Errorf("%s is not allowed to sign for the namespace %q", who, Namespace)
	case !s.ValidAfter.IsZero() && now.Before(s.ValidAfter):
		return Signer{}, fmt.Errorf("%s is not valid before %s", who, s.ValidAfter.Format(time.RFC3339))
	case !s.ValidBefore.IsZero() && now.After(s.ValidBefore):
		return Signer{}, fmt.Errorf("%s was valid until %s", who, s.ValidBefore.Format(time.RFC3339))
	}
	return s, nil
}

// matchList is OpenSSH's match_pattern_list: some pattern matches, and none of those with a "!".
func matchList(patterns []string, s string) (found bool) {
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		if match(p, s) {
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// match knows * and ?. It takes time of at most len(pattern) × len(s).
func match(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
