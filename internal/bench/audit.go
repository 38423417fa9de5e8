package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

var auditLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s.*?([0-9.]+) (?:appends|fsyncs)/s`)

// appends: records that are on disk for good, against bare fsyncs: the audit role's own benchmarks.
func appends(ctx context.Context, _ string) error {
	out, err := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=Append|BareFsync", "-benchtime=500x", "./daemon/internal/audit").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot measure the audit log: %w: %s", err, out)
	}
	rates := map[string]float64{}
	for _, m := range auditLine.FindAllSubmatch(out, -1) {
		if rates[string(m[1])], err = strconv.ParseFloat(string(m[2]), 64); err != nil {
			return err
		}
	}
	bare := rates["BareFsync"]
	if bare == 0 || len(rates) < 2 {
		return errors.New("cannot read what the audit log's benchmarks say: " + string(out))
	}
	report("fsync_per_s", "%.0f", bare)
	for _, writers := range []string{"1", "16", "128"} {
		rate := rates["Append/writers="+writers]
		report("audit_appends_per_s_"+writers+"_writers", "%.0f", rate)
		report("audit_appends_"+writers+"_writers_to_fsync", "%.2f", rate/bare)
	}
	return nil
}
