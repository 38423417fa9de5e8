package review

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of the walk along a link. The kernel follows 40 links as well.
const (
	maxLinks = 40
	maxSteps = 256
)

const leaves = "it leaves the folder"

// leads says why the link at p must not be made: on its way, through links in tree as well, it leaves tree. A link to what
// does not exist is fine as long as it need not be left again.
func leads(tree *os.File, p, target string) string {
	at := strings.Split(path.Dir(p), "/")
	if at[0] == "." {
		at = nil
	}
	missing := false
	rest := strings.Split(target, "/")
	for links, steps := 0, 0; len(rest) > 0; steps++ {
		if steps+len(rest) > maxSteps || links > maxLinks {
			return "it leads through too many links"
		}
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if missing {
				return "it leads through what does not exist"
			}
			if len(at) == 0 {
				return leaves
			}
			at = at[:len(at)-1]
			continue
		}
		if missing {
			continue
		}
		next, dir, err := step(tree, path.Join(append(at[:len(at):len(at)], name)...))
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			missing = true
		case err != nil:
			return "it leads to what cannot be read"
		case strings.HasPrefix(next, "/"):
			return leaves
		case next != "":
			links++
			rest = append(strings.Split(next, "/"), rest...)
		default:
			at = append(at[:len(at):len(at)], name)
			missing = !dir
		}
	}
	return ""
}

// step looks at one path without following it: the target if it is a link, else whether it is a directory.
func step(tree *os.File, p string) (target string, dir bool, err error) {
	f, err := openAt(tree, p, unix.O_PATH)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err = readlink(f, "")
	}
	return target, st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}
