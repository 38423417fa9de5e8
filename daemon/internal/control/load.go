package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/daemon/internal/config"
	"github.com/closedpaw/closedpaw/policy"
)

const maxConfig = 64 << 10

func readConfig(etc string) (config.Config, error) {
	p := filepath.Join(etc, "config.json")
	b, err := readSmall(p)
	if errors.Is(err, os.ErrNotExist) {
		return config.Default(), nil
	}
	if err != nil {
		return config.Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c, err := config.Parse(b)
	if err != nil {
		return c, fmt.Errorf("cannot use %s: %w", p, err)
	}
	return c, nil
}

// loadPolicy takes the signed policy, unless an older one than was in force before is put in its place.
func loadPolicy(etc, state string) (*policy.Bundle, error) {
	signers, err := readSmall(filepath.Join(etc, "allowed_signers"))
	if err != nil {
		return nil, fmt.Errorf("cannot start without the trusted signers: %w (closedpawd -setup makes what is missing)", err)
	}
	serials := filepath.Join(state, "policy.serial")
	var least uint64
	switch b, err := readSmall(serials); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot read the policy's last serial: %w", err)
	default:
		if least, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return nil, fmt.Errorf("cannot read the policy's last serial: %w (remove %s only if you trust the policy that is there)", err, serials)
		}
	}
	b, err := policy.Load(os.DirFS(filepath.Join(etc, "policy")), signers, policy.LoadOptions{Now: time.Now(), MinSerial: least})
	if err != nil {
		return nil, fmt.Errorf("cannot start without a valid policy: %w", err)
	}
	if b.Serial() > least {
		if err := remember(serials, b.Serial()); err != nil {
			return nil, fmt.Errorf("cannot remember the policy's serial: %w", err)
		}
	}
	return b, nil
}

// remember replaces the file of the serial. It is synced: after a power cut an empty one would keep the daemon from starting.
func remember(path string, serial uint64) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, serial)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func readSmall(p string) ([]byte, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s is longer than %d bytes", p, maxConfig)
	}
	return b, err
}
