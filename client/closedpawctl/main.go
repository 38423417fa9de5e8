// Closedpawctl is everything on the user's side of ClosedPaw: it asks, shows, lets the person decide, and applies what
// they allowed to their own files with their own rights.
//
// Rules of its interface: answers go to stdout; everything else goes to stderr, as "closedpawctl: …" in lower case
// without a period; questions go to the terminal, with no as their default. What the model, a tool, a file or the
// daemon says is neutralised (package screen) before it is shown. An error says what to do next.
package main

import (
	"os"
)

func main() {
	os.Exit(start(os.Args[1:]))
}
