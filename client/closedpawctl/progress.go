package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/screen"
)

// blink is how often the live line is drawn anew.
const blink = 200 * time.Millisecond

// progress writes the answer to stdout and what happens to stderr, so that the two do not tear each other's lines where
// both are the same terminal. With a terminal it also draws one live line: what is going on, and for how long.
type progress struct {
	mu      sync.Mutex
	out     *screen.Writer
	err     io.Writer
	live    bool // stderr is a terminal that can move its cursor
	outTTY  bool
	errTTY  bool
	quiet   bool
	midline bool // the answer's last line is not finished
	empty   bool // nothing of the answer was written
	busy    string
	since   time.Time
	drawn   bool
	stop    chan struct{}
	stopped chan struct{}
}

// newProgress begins; live is whether the live line may be used at all.
func (a *app) newProgress(quiet, live bool) *progress {
	p := &progress{
		out: screen.NewWriter(a.out), err: a.err, quiet: quiet, empty: true,
		outTTY: isTerminal(a.out), errTTY: isTerminal(a.err),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	p.live = live && p.errTTY && !quiet && os.Getenv("TERM") != "dumb"
	go p.run()
	return p
}

func (p *progress) run() {
	defer close(p.stopped)
	if !p.live {
		return
	}
	t := time.NewTicker(blink)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		p.mu.Lock()
		if p.busy != "" && !(p.outTTY && p.midline) {
			p.drawn = true
			fmt.Fprintf(p.err, "\r\x1b[K%c %s %.0fs", `-\|/`[n%4], p.busy, time.Since(p.since).Seconds())
		}
		p.mu.Unlock()
	}
}

// close ends the live line.
func (p *progress) close() {
	p.working("")
	close(p.stop)
	<-p.stopped
}

// working says what goes on from now on; "" is nothing. It must be text of ours.
func (p *progress) working(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if what == p.busy {
		return
	}
	p.erase()
	p.busy, p.since = what, time.Now()
}

func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.err, "\r\x1b[K")
		p.drawn = false
	}
}

// answer writes a piece of the answer, neutralised.
func (p *progress) answer(text string) error {
	if text == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.midline, p.empty = !strings.HasSuffix(text, "\n"), false
	_, err := io.WriteString(p.out, text)
	return err
}

// endAnswer ends the answer's last line.
func (p *progress) endAnswer() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	if err := p.out.Flush(); err != nil || !p.midline {
		return err
	}
	p.midline = false
	_, err := io.WriteString(p.out, "\n")
	return err
}

// say writes one line about what happens, neutralised, unless the person wants quiet.
func (p *progress) say(format string, args ...any) {
	if !p.quiet {
		p.must(format, args...)
	}
}

// must writes one line, neutralised, that the person has to see.
func (p *progress) must(format string, args ...any) {
	p.show("closedpawctl: " + screen.Line(fmt.Sprintf(format, args...)) + "\n")
}

// show writes text that is neutralised already.
func (p *progress) show(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.errTTY {
		p.clear()
	}
	fmt.Fprint(p.err, text)
}

// clear makes room on the terminal for what begins a line of its own.
func (p *progress) clear() {
	p.erase()
	if p.outTTY && p.midline {
		p.midline = false
		p.out.Flush()
		fmt.Fprintln(p.out)
	}
}

// pause makes room for a question on the terminal.
func (p *progress) pause() {
	p.working("")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}
