package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
)

// maxHeld bounds the events that wait behind an open question.
const maxHeld = 100_000

// turn follows the stream of an ask or a run: it puts questions to the person and applies what was allowed. While a
// question is open nothing else is shown, so that no text of the model can stand in for it.
type turn struct {
	app    *app
	p      *progress
	stream *client.Stream
	person *terminal // nil: nobody can be asked here
	root   *os.File  // the folder that was handed over, or nil
	mode   string    // of --apply
	sayYes bool      // --apply=yes exists here

	arrived func(*api.Event) error // each event, when it comes
	each    func(*api.Event) error // each event, in its turn
	whole   func() error           // before changes, when the answer is whole
	before  func()                 // before a question: keys typed are for it, not for the command
	after   func()

	session   string
	changes   *api.Changes
	shown     bool            // the person has seen changes
	answered  map[string]bool // questions that were answered here
	approved  bool            // the changes were allowed
	applied   bool
	denied    bool // here or elsewhere a person said no, or nobody could be asked
	conflicts bool // not all that was allowed could be applied
	done      *api.Done
	ended     bool // the stream's last event has come
}

type arrival struct {
	event api.Event
	err   error
}

// follow handles events until the stream's end.
func (t *turn) follow(ctx context.Context) error {
	t.answered = map[string]bool{}
	defer t.stream.Close()
	quit := make(chan struct{})
	defer close(quit)
	arrivals := make(chan arrival)
	go func() {
		for {
			e, err := t.stream.Next()
			select {
			case arrivals <- arrival{e, err}:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var held []api.Event
	for {
		var e api.Event
		if len(held) > 0 {
			e, held = held[0], held[1:]
		} else if t.ended {
			return nil
		} else {
			a := <-arrivals
			if a.err == io.EOF {
				return nil
			}
			if a.err != nil {
				return a.err
			}
			if err := t.arrive(&a.event); err != nil {
				return err
			}
			e = a.event
		}
		if e.Type == api.EventApproval && t.person != nil {
			if isAnswered(held, e.Approval.ID) {
				continue
			}
			more, err := t.ask(ctx, e.Approval, arrivals)
			if err != nil {
				return err
			}
			held = append(held, more...)
			continue
		}
		if err := t.handle(ctx, &e); err != nil {
			return err
		}
	}
}

func (t *turn) arrive(e *api.Event) error {
	if t.arrived == nil {
		return nil
	}
	return t.arrived(e)
}

func (t *turn) handle(ctx context.Context, e *api.Event) error {
	switch e.Type {
	case api.EventSession:
		t.session = e.Session.ID
	case api.EventApproval:
		if err := t.nobody(ctx, e.Approval); err != nil {
			return err
		}
	case api.EventAnswered:
		t.close(e.Approval)
	case api.EventNotice:
		t.p.must("%s", e.Text)
	case api.EventChanges:
		if t.whole != nil { // the whole answer first: the question that follows is about it
			if err := t.whole(); err != nil {
				return err
			}
		}
		if err := t.takeChanges(e.Changes); err != nil {
			return err
		}
	case api.EventApply:
		if err := t.apply(ctx, e.Apply); err != nil {
			return err
		}
	case api.EventError:
		return e.Error
	case api.EventDone:
		t.done = e.Done
	}
	return t.each(e)
}

// ask puts a question to the person while the stream goes on, and returns the events that came meanwhile. The answer
// of another terminal, or the stream's end, closes the question.
func (t *turn) ask(ctx context.Context, q *api.Approval, arrivals <-chan arrival) ([]api.Event, error) {
	t.p.pause()
	if t.before != nil {
		t.before()
		defer t.after()
	}
	asking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	type reply struct {
		yes bool
		err error
	}
	replies := make(chan reply, 1)
	go func() {
		yes, err := t.person.confirm(asking, t.describe(q), question(q))
		replies <- reply{yes, err}
	}()
	var held []api.Event
	closeQuestion := func() {
		stop(errElsewhere)
		<-replies
	}
	for {
		select {
		case r := <-replies:
			if r.err != nil {
				return held, r.err
			}
			return held, t.answer(ctx, q, r.yes)
		case a := <-arrivals:
			if a.err == io.EOF { // its last event waits behind this question
				closeQuestion()
				t.ended = true
				return held, nil
			}
			if a.err != nil {
				closeQuestion()
				return held, a.err
			}
			e := a.event
			if err := t.arrive(&e); err != nil {
				closeQuestion()
				return held, err
			}
			switch {
			case e.Type == api.EventAnswered && e.Approval.ID == q.ID:
				closeQuestion()
				t.close(e.Approval)
				return held, nil
			case e.Type == api.EventDone || e.Type == api.EventError:
				closeQuestion()
				return append(held, e), nil
			case len(held) == maxHeld:
				closeQuestion()
				return held, fmt.Errorf("%w: it goes on while a question is open", client.ErrProtocol)
			}
			held = append(held, e)
		}
	}
}

func isAnswered(events []api.Event, id string) bool {
	return slices.ContainsFunc(events, func(e api.Event) bool { return e.Type == api.EventAnswered && e.Approval.ID == id })
}

// verdict is the error that a turn which went well for the daemon still means for the person.
func (t *turn) verdict() error {
	switch {
	case t.conflicts:
		return exitStatus(exitError)
	case t.denied || t.done != nil && t.done.Denied > 0:
		return exitStatus(exitDenied)
	}
	return nil
}
