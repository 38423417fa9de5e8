package audit

import (
	"errors"
	"fmt"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// Bounds of a record's fields in bytes. Each byte takes at most six as JSON, so that a line fits auditproof.MaxLine.
const (
	maxName   = 64 // session, event, decision and tier
	maxTool   = 256
	maxDigest = 128
	maxReason = 1 << 10
	maxDetail = 4 << 10
)

// cut marks where a text was too long.
const cut = "…[cut]"

// bounded cuts the fields of a record to what the log takes, and makes them valid UTF-8.
func bounded(r api.AuditRecord) api.AuditRecord {
	r.Session = clip(r.Session, maxName)
	r.Event = clip(r.Event, maxName)
	r.Tool = clip(r.Tool, maxTool)
	r.Decision = clip(r.Decision, maxName)
	r.Reason = clip(r.Reason, maxReason)
	r.Tier = clip(r.Tier, maxName)
	r.Digest = clip(r.Digest, maxDigest)
	r.Detail = clip(r.Detail, maxDetail)
	return r
}

func clip(s string, max int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= max {
		return s
	}
	head, _ := text.Cut(s, max-len(cut))
	return head + cut
}

// EncodeRecord makes the record's line, without a newline.
func EncodeRecord(r api.AuditRecord) ([]byte, error) {
	b, err := wire.Encode(bounded(r))
	if err != nil { // a year beyond 9999
		return nil, fmt.Errorf("cannot encode a record: %w", err)
	}
	return b, nil
}

// ParseRecord reads a line strictly.
func ParseRecord(line []byte) (api.AuditRecord, error) {
	var r api.AuditRecord
	if len(line) >= auditproof.MaxLine {
		return r, errors.New("it is longer than any record")
	}
	if n, ok := auditproof.LineSeq(line); !ok || n < 0 {
		return r, errors.New("it does not begin as a record")
	}
	return r, wire.Decode(line, &r)
}
