package policy

import (
	"errors"
	"fmt"
	"slices"
)

// Profile is profile.json: the limits of a sandbox.
type Profile struct {
	Version        int    `json:"version"`          // 1
	Tier           string `json:"tier"`             // the weakest that is accepted, one of the tiers
	MemoryBytes    int64  `json:"memory_bytes"`     // of the whole sandbox
	Processes      int64  `json:"processes"`        // at one time, inside
	UpperBytes     int64  `json:"upper_bytes"`      // what may be written to the folder's copy
	TimeoutSeconds int64  `json:"timeout_seconds"`  // the longest that one command may run
	MaxOutputBytes int64  `json:"max_output_bytes"` // of a tool's result that reaches the model
}

// tiers are the kinds of sandbox, from the weakest to the strongest.
var tiers = []string{"gvisor", "kata"}

// Accepts says whether a sandbox of this tier is as strong as the profile asks for.
func (p Profile) Accepts(tier string) bool {
	need, have := slices.Index(tiers, p.Tier), slices.Index(tiers, tier)
	return need >= 0 && have >= need
}

// ParseProfile reads profile.json strictly.
func ParseProfile(b []byte) (Profile, error) {
	var p Profile
	if err := strict(b, &p); err != nil {
		return Profile{}, err
	}
	if p.Version != 1 {
		return Profile{}, errors.New("version: must be 1")
	}
	if !slices.Contains(tiers, p.Tier) {
		return Profile{}, fmt.Errorf("tier: must be one of %q", tiers)
	}
	for _, limit := range []struct {
		name            string
		value, min, max int64
	}{
		{"memory_bytes", p.MemoryBytes, 64 << 20, 1 << 40},
		{"processes", p.Processes, 8, 4096},
		{"upper_bytes", p.UpperBytes, 1 << 20, 1 << 40},
		{"timeout_seconds", p.TimeoutSeconds, 1, 7 * 24 * 3600},
		{"max_output_bytes", p.MaxOutputBytes, 1 << 10, 1 << 20},
	} {
		if limit.value < limit.min || limit.value > limit.max {
			return Profile{}, fmt.Errorf("%s: must be from %d to %d", limit.name, limit.min, limit.max)
		}
	}
	return p, nil
}
