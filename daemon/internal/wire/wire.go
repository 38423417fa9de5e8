// Package wire is how the daemon reads and writes JSON: strictly, and without what would make it grow.
//
// Its callers bound the size of what they read and check its version; it refuses unknown fields and whatever follows.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Decode reads the one JSON value that b must be into v: fields that v does not have are an error, and so is anything
// behind it. Its error is never io.EOF, which ends connections.
func Decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err == io.EOF {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows it")
	}
	return nil
}

// Encode returns v as one line without its end. Unlike json.Marshal it leaves <, > and & alone: markup would grow sixfold.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
