package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
)

// auditPage is how many records are asked for at once.
const auditPage = 1000

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "read and verify the audit log",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("say what to do: list or verify (see: %s --help)", cmd.CommandPath())
		},
	}
	cmd.AddCommand(a.auditListCommand(), a.auditVerifyCommand())
	return cmd
}

func (a *app) auditListCommand() *cobra.Command {
	var session string
	var limit int
	cmd := &cobra.Command{Use: "list", Short: "list your records, the newest last; root sees those of all", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&session, "session", "", "only those of the session with this `ID`")
	cmd.Flags().IntVar(&limit, "limit", 0, "only the newest `N`")
	asJSON := cmd.Flags().Bool("json", false, "write one JSON object a line")
	cmd.RegisterFlagCompletionFunc("session", a.completeSessions)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return usage("--limit cannot be %d", limit)
		}
		t := newTable(a.out)
		if !*asJSON {
			t.row("SEQ", "TIME", "UID", "SESSION", "EVENT", "TOOL", "DECISION", "TIER", "REASON")
		}
		show := func(r api.AuditRecord) error {
			if *asJSON {
				return a.printJSON(r)
			}
			t.row(strconv.FormatInt(r.Seq, 10), local(r.Time), strconv.FormatInt(r.UID, 10), r.Session, r.Event, r.Tool,
				r.Decision, r.Tier, cut(r.Reason, 80))
			return nil
		}
		if err := a.eachRecord(cmd.Context(), session, limit, show); err != nil {
			return cannot("read the audit log", err)
		}
		return t.flush()
	}
	return cmd
}

// eachRecord shows the records in order; with a limit only the last ones.
func (a *app) eachRecord(ctx context.Context, session string, limit int, show func(api.AuditRecord) error) error {
	var last []api.AuditRecord
	for after := int64(-1); ; {
		page, err := a.client.Audit(ctx, after, auditPage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			if r.Seq <= after {
				return errors.New("the daemon sends the audit log out of order (closedpawctl audit verify says whether it is whole)")
			}
			after = r.Seq
			if session != "" && r.Session != session {
				continue
			}
			if limit > 0 {
				last = append(last, r)
				last = last[max(0, len(last)-limit):]
			} else if err := show(r); err != nil {
				return err
			}
		}
	}
	for _, r := range last {
		if err := show(r); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "prove that the audit log is whole",
		Long: `verify has the daemon read its whole log again and checks the proof that it is the log which
was signed, and that it still begins with the records which were verified here before. What
was verified is remembered in $XDG_STATE_HOME/closedpaw (~/.local/state/closedpaw).

With --dir it reads a log folder, or a copy of one, without asking the daemon.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir != "" {
				return cannot("verify the audit log", a.verifyDir(dir))
			}
			return cannot("verify the audit log", a.verifyDaemon(cmd.Context()))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "verify the log folder `DIR`")
	cmd.MarkFlagDirname("dir")
	return cmd
}

func (a *app) verifyDaemon(ctx context.Context) error {
	state, err := stateDir()
	if err != nil {
		return err
	}
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(socket)) // one log for each daemon
	file := filepath.Join(state, "audit-"+hex.EncodeToString(sum[:8])+".json")
	old, err := auditproof.LoadRemembered(file)
	if err != nil {
		return err
	}
	var size int64
	if old != nil {
		size = old.Size
	}
	proof, err := a.client.Proof(ctx, size)
	if err != nil {
		return err
	}
	now, err := auditproof.Verify(proof, old)
	if err != nil {
		return fmt.Errorf("%w [remembered in %s]", err, file)
	}
	if err := auditproof.SaveRemembered(file, now); err != nil {
		return err
	}
	return a.verified(now, old)
}

// verifyDir compares a folder with what is remembered of the log that is signed with the same key, if anything is.
func (a *app) verifyDir(dir string) error {
	old, err := rememberedOf(dir)
	if err != nil {
		return err
	}
	now, err := auditproof.VerifyDirAgainst(dir, old)
	if errors.Is(err, auditproof.ErrUnsigned) && now != nil {
		a.say("%v", err)
	} else if err != nil {
		return err
	}
	return a.verified(now, old)
}

func (a *app) verified(now, old *auditproof.Remembered) error {
	s := fmt.Sprintf("ok: %s, root %s", count(int(now.Size), "record"), now.Hash)
	if old != nil && old.Size > 0 {
		s += fmt.Sprintf(", extends the %s seen on %s", count(int(old.Size), "record"), local(old.Time))
	}
	_, err := fmt.Fprintln(a.out, s)
	return err
}

// rememberedOf returns the longest remembered log with the key of a folder; nil if there is none.
func rememberedOf(dir string) (*auditproof.Remembered, error) {
	key, err := os.ReadFile(filepath.Join(dir, auditproof.PublicKeyFile))
	if err != nil {
		return nil, nil // the verifier says it better
	}
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(state, "audit-*.json"))
	if err != nil {
		return nil, err
	}
	var best *auditproof.Remembered
	for _, file := range files {
		r, err := auditproof.LoadRemembered(file)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Key+"\n" == string(key) && (best == nil || r.Size > best.Size) {
			best = r
		}
	}
	return best, nil
}

// stateDir is where we remember things, made for its owner alone.
func stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a folder to remember the log in: %w (set XDG_STATE_HOME)", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	dir := filepath.Join(base, "closedpaw")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the folder to remember the log in: %w", err)
	}
	return dir, nil
}
