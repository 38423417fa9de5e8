package policy

import "errors"

// What can be wrong with a bundle. Every error of Load wraps one of them, and is an *Error.
var (
	ErrUnsigned   = errors.New("unsigned")         // no signature, or none that is for a policy
	ErrSigner     = errors.New("signer")           // signed by a key that may not, or allowed_signers is bad
	ErrAltered    = errors.New("altered")          // a file differs from what was signed, is missing or was added
	ErrExpired    = errors.New("expired")          // past its expiry, or before its first day
	ErrRolledBack = errors.New("rolled back")      // older than one that was in force before
	ErrInvalid    = errors.New("invalid")          // signed, but not a policy that can be used
	errTooBig     = errors.New("too big")          // see maxFile
	errNotRegular = errors.New("not regular file") // a link, a folder, a device
)

// Error says which file of a bundle is bad, why, and what to do.
type Error struct {
	File   string // within the bundle, or "allowed_signers"
	Reason string
	Fix    string // what to do next
	Kind   error  // one of the sentinels
}

func (e *Error) Error() string {
	return "cannot use the policy: " + e.File + ": " + e.Reason + " (" + e.Fix + ")"
}

func (e *Error) Unwrap() error { return e.Kind }

// What to do about a bundle. closedpawd -sign signs with the key that it made at its first start.
const (
	fixSign    = `if the policy is as you want it, sign it: closedpawd -sign (with -dev DIR where it runs so)`
	fixEdit    = `correct the file, then sign the policy: closedpawd -sign (with -dev DIR where it runs so)`
	fixSigners = `correct the file; ssh-keygen(1) has its format under ALLOWED SIGNERS`
)

func invalid(file, reason string) *Error {
	return &Error{File: file, Reason: reason, Fix: fixEdit, Kind: ErrInvalid}
}
