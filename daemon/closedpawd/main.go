// Command closedpawd is the daemon of ClosedPaw, and each of the narrow roles that it starts itself as.
package main

import (
	"fmt"
	"os"

	"github.com/closedpaw/closedpaw/daemon"
)

var version = "devel" // set by the linker

func main() {
	if err := daemon.Main(os.Args[1:], version); err != nil {
		fmt.Fprintln(os.Stderr, "closedpawd: "+err.Error())
		os.Exit(1)
	}
}
