// Package config is config.json, the one configuration file of the daemon.
//
// It guarantees that what it returns is complete and within bounds: every name is known, stands once and means what
// the daemon does. What decides about people is not here but in the signed policy. It must never open anything.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 64 << 10

// Config is config.json. What the file does not name has its value of Default; version must be named.
type Config struct {
	Version         int    `json:"version"`          // 1
	Ollama          string `json:"ollama"`           // URL of Ollama, on this machine
	Model           string `json:"model"`            // taken when a request names none; empty: the first that can call tools
	UIDMin          uint32 `json:"uid_min"`          // people have uids from here, as UID_MIN in login.defs
	UIDMax          uint32 `json:"uid_max"`          // to here, as UID_MAX
	ApprovalSeconds int    `json:"approval_seconds"` // a question that nobody answers is denied after this time
}

// nobody is the uid of what has no uid; gVisor's sentry runs as it.
const nobody = 65534

// sandboxUIDs is where the uids of sandboxes begin.
const sandboxUIDs = 0x70000000

// Default is what an empty configuration means.
func Default() Config {
	return Config{Version: 1, Ollama: "http://127.0.0.1:11434", UIDMin: 1000, UIDMax: 60000, ApprovalSeconds: 300}
}

// Parse reads config.json. Its errors say which name is bad and what is allowed.
func Parse(b []byte) (Config, error) {
	if len(b) > MaxSize {
		return Config{}, fmt.Errorf("cannot read config.json: it is bigger than %d bytes", MaxSize)
	}
	c := Default()
	c.Version = 0
	if err := json.Unmarshal(b, &c, json.RejectUnknownMembers(true)); err != nil {
		return Config{}, fmt.Errorf("cannot read config.json: %w", explain(err))
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("cannot use config.json: %w", err)
	}
	return c, nil
}

// Encode writes c as a file for people to edit.
func (c Config) Encode() ([]byte, error) {
	b, err := json.Marshal(c, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("cannot encode config.json: %w", err)
	}
	return append(b, '\n'), nil
}

// Person says whether the user with this uid is somebody who logs in.
func (c Config) Person(uid uint32) bool {
	return uid >= c.UIDMin && uid <= c.UIDMax && uid != nobody
}

// Approval is how long a question stays open.
func (c Config) Approval() time.Duration { return time.Duration(c.ApprovalSeconds) * time.Second }

func (c Config) check() error {
	if c.Version != 1 {
		return errors.New("version: must be 1")
	}
	if err := CheckOllama(c.Ollama); err != nil {
		return fmt.Errorf("ollama: %w", err)
	}
	if len(c.Model) > 256 {
		return errors.New("model: must have at most 256 bytes")
	}
	for _, r := range c.Model {
		if r <= ' ' || r > '~' {
			return errors.New("model: must be a name like llama3.2:3b, without blanks")
		}
	}
	if c.UIDMin < 1 || c.UIDMin > c.UIDMax {
		return errors.New("uid_min: must be from 1 to uid_max; root is never a person")
	}
	if c.UIDMax >= sandboxUIDs {
		return fmt.Errorf("uid_max: must be below %d, where the uids of sandboxes begin", sandboxUIDs)
	}
	if c.ApprovalSeconds < 10 || c.ApprovalSeconds > 7*24*3600 {
		return fmt.Errorf("approval_seconds: must be from 10 to %d", 7*24*3600)
	}
	return nil
}

// CheckOllama says whether s is an URL under which Ollama may be asked: plain HTTP to this machine, whose models tell
// nobody what they are told.
func CheckOllama(s string) error {
	allowed := errors.New("must be like http://127.0.0.1:11434, with an address of this machine and nothing behind the port")
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || s != "http://"+u.Host || strings.HasSuffix(u.Host, ":") {
		return allowed
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return allowed
		}
	}
	if u.Hostname() == "localhost" {
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return allowed
	}
	return nil
}

// explain makes a sentence for people of what the JSON parser says.
func explain(err error) error {
	var at *json.SemanticError
	if !errors.As(err, &at) || at.JSONPointer == "" {
		return err
	}
	name := at.JSONPointer.LastToken()
	if errors.Is(err, json.ErrUnknownName) {
		return fmt.Errorf("%.80q: there is no such name; there are version, ollama, model, uid_min, uid_max and approval_seconds", name)
	}
	want := "a whole number that is not too big"
	if name == "ollama" || name == "model" {
		want = "a string"
	}
	return fmt.Errorf("%.80s: must be %s", name, want)
}
