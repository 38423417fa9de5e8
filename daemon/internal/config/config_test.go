package config_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/daemon/internal/config"
)

func TestParse(t *testing.T) {
	full := config.Config{Version: 1, Ollama: "http://[::1]:1234", Model: "qwen3:8b", UIDMin: 500, UIDMax: 2000, ApprovalSeconds: 60}
	tests := []struct {
		text string
		want config.Config
	}{
		{`{"version":1}`, config.Default()},
		{" {\"version\":1,\n\"ollama\":\"http://[::1]:1234\",\"model\":\"qwen3:8b\",\"uid_min\":500,\"uid_max\":2000,\"approval_seconds\":60}\n", full},
	}
	for _, test := range tests {
		got, err := config.Parse([]byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
	}
	if full.Approval() != time.Minute {
		t.Errorf("approval: got %s", full.Approval())
	}
	for _, c := range []config.Config{config.Default(), full} {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := config.Parse(b); err != nil || got != c {
			t.Errorf("%s: got %+v, %v", b, got, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                                         "cannot read config.json",
		`null`:                                     "version: must be 1",
		`[]`:                                       "cannot read config.json",
		`{}`:                                       "version: must be 1",
		`{"version":2}`:                            "version: must be 1",
		`{"version":"1"}`:                          "version: must be a whole number",
		`{"Version":1}`:                            `"Version": there is no such name; there are version, ollama`,
		`{"version":1,"olama":"x"}`:                `"olama": there is no such name`,
		`{"version":1,"version":1}`:                "duplicate",
		`{"version":1} x`:                          "cannot read config.json",
		`{"version":1}{}`:                          "cannot read config.json",
		`{"version":1,"model":3}`:                  "model: must be a string",
		`{"version":1,"model":"a b"}`:              "model: must be a name",
		`{"version":1,"model":"\u202e"}`:           "model: must be a name",
		`{"version":1,"ollama":null}`:              "ollama: must be like",
		`{"version":1,"uid_min":0}`:                "uid_min: must be from 1",
		`{"version":1,"uid_min":-1}`:               "uid_min: must be a whole number",
		`{"version":1,"uid_min":1.5}`:              "uid_min: must be a whole number",
		`{"version":1,"uid_min":60001}`:            "uid_min: must be from 1 to uid_max",
		`{"version":1,"uid_max":1879048192}`:       "uid_max: must be below",
		`{"version":1,"uid_max":4294967296}`:       "uid_max: must be a whole number",
		`{"version":1,"approval_seconds":9}`:       "approval_seconds: must be from 10",
		`{"version":1,"approval_seconds":9999999}`: "approval_seconds: must be from 10",
		strings.Repeat(" ", config.MaxSize+1):      "bigger than",
	} {
		if _, err := config.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
}

func TestCheckOllama(t *testing.T) {
	for s, ok := range map[string]bool{
		"http://127.0.0.1:11434": true, "http://127.0.0.1": true, "http://127.8.8.8:1": true, "http://localhost:11434": true, "http://[::1]:11434": true,
		"": false, "127.0.0.1:11434": false, "https://127.0.0.1": false, "http://": false, "http://:11434": false, "http://0.0.0.0:11434": false,
		"http://192.168.1.2:11434": false, "http://example.org": false, "http://localhost.example.org": false, "http://127.0.0.1.example.org": false,
		"http://u:p@127.0.0.1": false, "http://127.0.0.1/": false, "http://127.0.0.1/v1": false, "http://127.0.0.1?x": false, "http://127.0.0.1#x": false,
		"http://127.0.0.1:0": false, "http://127.0.0.1:99999": false, "http://127.0.0.1:": false, "http://[::1%25lo]:1": false, "http://2130706433": false,
		"http://127.0.0.1:1\n": false, "HTTP://127.0.0.1": false, "unix:///run/x": false, "http://[::ffff:127.0.0.1]": true, "http://[::ffff:8.8.8.8]": false,
	} {
		if err := config.CheckOllama(s); (err == nil) != ok {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestPerson(t *testing.T) {
	c := config.Default()
	wide := c
	wide.UIDMax = 100000
	for uid, want := range map[uint32]bool{0: false, 999: false, 1000: true, 60000: true, 60001: false, 65534: false, 1<<32 - 1: false} {
		if c.Person(uid) != want {
			t.Errorf("%d: got %v", uid, !want)
		}
	}
	if wide.Person(65534) || !wide.Person(65533) {
		t.Error("nobody is a person")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"ollama":"http://[::1]:1234","model":"qwen3:8b","uid_min":500,"uid_max":2000,"approval_seconds":60}`))
	f.Add([]byte(`{"version":1,"ollama":"http://localhost"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := config.Parse(b)
		if err != nil {
			return
		}
		u, err := url.Parse(c.Ollama)
		if err != nil || u.Host == "" || u.Path != "" || u.User != nil || c.Person(0) || c.Version != 1 {
			t.Errorf("got %+v", c)
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := config.Parse(again); err != nil || got != c {
			t.Errorf("%+v became %+v, %v", c, got, err)
		}
	})
}
