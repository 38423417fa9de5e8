package gateway

import (
	"context"
	"errors"
	"net"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// serveStream answers the requests of one stream, one after the other, until the agent closes it, breaks its form, or
// ctx ends. It closes conn.
func serveStream(ctx context.Context, conn net.Conn, p model.Provider, name string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Closing is what frees a write that an agent does not read.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()

	// Requests are read while an answer is on its way, because only so the end of the stream is seen at once.
	requests := make(chan model.Request, 1)
	go func() {
		defer cancel()
		r := model.NewReader(conn)
		for {
			req, err := r.Request()
			if errors.Is(err, model.ErrMalformed) {
				e := &api.Error{Code: api.CodeInternal, Message: text.Short(err.Error(), 300)}
				if b, err := model.EncodeChunk(model.Chunk{Error: e}); err == nil {
					_, _ = conn.Write(b) // the stream ends either way
				}
			}
			if err != nil {
				return
			}
			select {
			case requests <- req:
			default: // a third one before the first was answered
				return
			}
		}
	}()
	for {
		select {
		case req := <-requests:
			if err := answer(ctx, conn, p, name, req); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// answer asks p and passes on what it says. One goroutine does both: while the agent does not read, the server is not
// read either, and what it has sent meanwhile goes on in larger pieces.
func answer(ctx context.Context, conn net.Conn, p model.Provider, name string, req model.Request) error {
	pass := func(c model.Chunk) error {
		b, err := model.EncodeChunk(c)
		if err == nil {
			_, err = conn.Write(b)
		}
		return err
	}
	done, err := p.Chat(ctx, name, req, pass)
	if err != nil {
		return pass(model.Chunk{Error: problem(err)})
	}
	return pass(model.Chunk{Done: &done})
}
