// Command runsc is gVisor's runtime, cut down to what closedpawd calls.
//
// It is built from the gVisor module that the rest of ClosedPaw is built from, so that this runtime and the client of
// its control RPC (daemon/internal/sandbox/runsc) cannot be of different versions. What stands in the two lists below
// is all that it can do: there is no exec (commands go by the control RPC), no checkpoint, no debugging, no metric
// server, and above all no do, which runs a command with the host's whole file system in reach.
package main

import (
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
)

func main() {
	const (
		launcher = ""                  // what the launcher calls
		internal = "internal use only" // what runsc starts itself as
	)
	cli.Run(nil, map[util.SubCommand]string{
		new(cmd.Create): launcher,
		new(cmd.Start):  launcher,
		new(cmd.Kill):   launcher,
		new(cmd.Delete): launcher,
		new(cmd.State):  launcher,
		new(cmd.List):   launcher,

		new(sentrycmd.Boot):   internal,
		new(sentrycmd.Umount): internal,
		new(cmd.Gofer):        internal,
	}, nil)
}
