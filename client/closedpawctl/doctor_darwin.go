package main

import "github.com/closedpaw/closedpaw/client/api"

// localChecks has nothing to look at where no daemon can run.
func localChecks() []api.Check {
	return []api.Check{{
		Name: "system", Needed: true, Detail: "closedpawd runs on Linux only",
		Fix: "forward the socket of a Linux machine: ssh -L /tmp/closedpaw.sock:/run/closedpaw/closedpaw.sock HOST (folders cannot be handed over that way)",
	}}
}
