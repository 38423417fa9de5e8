package demo

import (
	"regexp"
	"strings"

	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// listFiles lists the regular files below the working directory with their sizes, one wc a folder, at most a hundred
// of them by name, and counts all. It needs a POSIX sh, wc and awk.
const listFiles = `list() {
  d=$1; shift
  for f in "$d"/* "$d"/.[!.]*; do [ -f "$f" ] && [ ! -L "$f" ] && set -- "$@" "$f"; done
  [ $# -gt 0 ] && wc -lc -- "$@" 2>/dev/null
  for f in "$d"/*/ "$d"/.[!.]*/; do
    f=${f%/}
    [ -d "$f" ] && [ ! -L "$f" ] && [ "${f##*/}" != .git ] && list "$f"
  done
}
list . | awk '
/^ *[0-9]+ +[0-9]+ [^.]?\.\// {
  n++; l += $1; b += $2
  name = $0; sub(/^ *[0-9]+ +[0-9]+ /, "", name); sub(/\.\//, "", name)
  if ($2 + 0 >= most) { most = $2 + 0; big = name }
  if (n <= 100) printf "%9d bytes %6d lines  %s\n", $2, $1, name
}
END {
  if (n > 100) printf "(and %d more)\n", n - 100
  if (n > 0) printf "largest: %s\n", big
  printf "total: %d files, %d bytes, %d lines\n", n, b, l
}'`

var (
	totalLine   = regexp.MustCompile(`(?m)^total: (\d+) files, (\d+) bytes, (\d+) lines$`)
	largestLine = regexp.MustCompile(`(?m)^largest: (.*)$`)
)

func parseSummarise(line string) (task, bool) {
	line = strings.TrimRight(line, ".! ")
	if !strings.EqualFold(line, "summarise this folder") && !strings.EqualFold(line, "summarize this folder") {
		return nil, false
	}
	return func(results []model.Message) reply {
		if len(results) == 0 {
			return reply{tool: "shell", args: map[string]string{"command": listFiles}}
		}
		out := results[0].Text
		if results[0].Error {
			return say("I could not look into this folder: %s", out)
		}
		total := last(totalLine.FindAllStringSubmatchIndex(out, -1))
		if total == nil {
			return say("I could not count the files of this folder. The listing was:\n\n%s", block(out))
		}
		if out[total[2]:total[3]] == "0" {
			return say("This folder has no files.")
		}
		list, largest := out[:total[0]], ""
		if m := last(largestLine.FindAllStringSubmatchIndex(list, -1)); m != nil {
			largest, list = list[m[2]:m[3]], list[:m[0]]
		}
		return say("This folder has %s files with %s bytes and %s lines in all; the largest is %s. I read only names and sizes, not what the files say.\n\n%s",
			out[total[2]:total[3]], out[total[4]:total[5]], out[total[6]:total[7]], code(largest), block(list))
	}, true
}

func last(matches [][]int) []int {
	if len(matches) == 0 {
		return nil
	}
	return matches[len(matches)-1]
}
