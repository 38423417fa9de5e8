package review_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

func list(set *api.Changes) []string {
	var out []string
	for _, l := range []struct {
		kind string
		list []api.Change
	}{{"added", set.Added}, {"modified", set.Modified}, {"deleted", set.Deleted}, {"renamed", set.Renamed}, {"refused", set.Refused}} {
		for _, c := range l.list {
			s := fmt.Sprintf("%s %s", l.kind, c.Path)
			switch {
			case l.kind == "refused":
				s += ": " + c.Why
			case c.Type == "link":
				s += " -> " + c.Target
			default:
				s += fmt.Sprintf(" %s %04o", c.Type, c.Mode)
			}
			if c.From != "" {
				s += " from " + c.From
			}
			out = append(out, s)
		}
	}
	return out
}

func TestScan(t *testing.T) {
	fill := func(d dir) {
		d.write("a", "one\n")
		d.write("b", "two\n")
		d.mkdir("sub/deep")
		d.write("sub/x", "x\n")
		d.write("sub/y", "y\n")
		d.write("sub/deep/z", "z\n")
		d.link("a", "l")
		d.link("/etc", "out")
	}
	const leaves = ": it leaves the folder"
	for _, tt := range []struct {
		name   string
		change func(dir)
		want   []string
	}{
		{"nothing", nil, nil},
		{"added", func(d dir) { d.mkdir("n/m"); d.write("n/m/f", "f"); d.mode("n/m/f", 0o755); d.write("empty", "") },
			[]string{"added empty file 0644", "added n dir 0755", "added n/m dir 0755", "added n/m/f file 0755"}},
		{"modified", func(d dir) { d.write("a", "uno\n"); d.write("sub/deep/z", "Z\n") },
			[]string{"modified a file 0644", "modified sub/deep/z file 0644"}},
		{"deleted", func(d dir) { d.rm("a"); d.rm("sub"); d.rm("l") },
			[]string{"deleted a file 0644", "deleted l -> a", "deleted sub dir 0755", "deleted sub/deep dir 0755",
				"deleted sub/deep/z file 0644", "deleted sub/x file 0644", "deleted sub/y file 0644"}},
		{"a link out of the folder deleted", func(d dir) { d.rm("out") }, []string{"deleted out -> /etc"}},
		{"renamed", func(d dir) { d.mv("a", "sub/a2"); d.mode("sub/a2", 0o755) }, []string{"renamed sub/a2 file 0755 from a"}},
		{"renamed over another", func(d dir) { d.mv("a", "b") }, []string{"modified b file 0644", "deleted a file 0644"}},
		{"renamed and changed", func(d dir) { d.mv("a", "c"); d.write("c", "new\n") },
			[]string{"added c file 0644", "deleted a file 0644"}},
		{"renamed once only", func(d dir) { d.write("c1", "one\n"); d.write("c2", "one\n"); d.rm("a") },
			[]string{"added c2 file 0644", "renamed c1 file 0644 from a"}},
		{"folder moved by copies", func(d dir) { d.mkdir("s2"); d.mv("sub/x", "s2/x"); d.mv("sub/y", "s2/y"); d.rm("sub") },
			[]string{"added s2 dir 0755", "deleted sub dir 0755", "deleted sub/deep dir 0755", "deleted sub/deep/z file 0644",
				"renamed s2/x file 0644 from sub/x", "renamed s2/y file 0644 from sub/y"}},
		{"folder became a file", func(d dir) { d.rm("sub"); d.write("sub", "x\n") },
			[]string{"added sub file 0644", "deleted sub dir 0755", "deleted sub/deep dir 0755", "deleted sub/deep/z file 0644",
				"deleted sub/x file 0644", "deleted sub/y file 0644"}},
		{"file became a folder", func(d dir) { d.rm("a"); d.mkdir("a"); d.write("a/in", "one\n") },
			[]string{"added a dir 0755", "added a/in file 0644", "deleted a file 0644"}},
		{"file became a link", func(d dir) { d.rm("a"); d.link("b", "a") }, []string{"added a -> b", "deleted a file 0644"}},
		{"link became a file", func(d dir) { d.rm("l"); d.write("l", "l") }, []string{"added l file 0644", "deleted l -> a"}},
		{"folder made again", func(d dir) { d.rm("sub"); d.mkdir("sub"); d.write("sub/x", "x\n"); d.write("sub/n", "n") },
			[]string{"added sub/n file 0644", "deleted sub/deep dir 0755", "deleted sub/deep/z file 0644", "deleted sub/y file 0644"}},
		{"folder made again and empty", func(d dir) { d.rm("sub"); d.mkdir("sub") },
			[]string{"deleted sub/deep dir 0755", "deleted sub/deep/z file 0644", "deleted sub/x file 0644", "deleted sub/y file 0644"}},
		{"mode only", func(d dir) {
			d.mode("a", 0o755)
			d.mode("sub", 0o777|unix.S_ISVTX)
			d.mode("sub/deep", 0o755|unix.S_ISGID)
		},
			[]string{"modified a file 0755", "modified sub dir 0777"}},
		{"mode that keeps the role out", func(d dir) { d.mode("sub", 0o750) },
			[]string{"modified sub dir 0750", "refused sub: it cannot be read with the sandbox's rights"}},
		{"touched", func(d dir) {
			must(d.t, os.Chtimes(d.p("a"), time.Now(), time.Now()))
			d.mode("b", 0o600)
			d.mode("b", 0o644)
			d.mv("sub/x", "sub/tmp")
			d.mv("sub/tmp", "sub/x")
			d.write("gone", "")
			d.rm("gone")
		}, nil},
		{"links inside", func(d dir) {
			d.link("sub/x", "in1")
			d.link("../a", "sub/in2")
			d.link("deep/../../b", "sub/in3")
			d.link("not/there", "in4")
			d.link(".", "in5")
			d.rm("l")
			d.link("b", "l")
		}, []string{"added in1 -> sub/x", "added in4 -> not/there", "added in5 -> .", "added sub/in2 -> ../a",
			"added sub/in3 -> deep/../../b", "modified l -> b"}},
		{"links outside", func(d dir) {
			d.link("/etc/passwd", "o1")
			d.link("../x", "o2")
			d.link("../../a", "sub/o3")
			d.link("out/passwd", "o4") // through the person's own link
			d.mkdir("d1/d2/d3")
			d.link("d1/d2/d3", "hop")
			d.link("../..", "d1/d2/ok")
			d.link("../d1/d2/../../hop/../../../..", "d1/o5") // in the folder as text, not as the links go
			d.link("loop2", "loop1")
			d.link("loop1", "loop2")
			d.link("none/../a", "o6")
			d.link("bad\nname", "o7")
			d.link("bad\xff", "o8")
		}, []string{"added d1 dir 0755", "added d1/d2 dir 0755", "added d1/d2/d3 dir 0755", "added d1/d2/ok -> ../..", "added hop -> d1/d2/d3",
			"refused d1/o5" + leaves,
			"refused loop1: it leads through too many links", "refused loop2: it leads through too many links",
			"refused o1" + leaves, "refused o2" + leaves, "refused o4" + leaves, "refused o6: it leads through what does not exist",
			"refused o7: its target holds control or formatting characters", "refused o8: its target is not valid UTF-8",
			"refused sub/o3" + leaves}},
		{"special", func(d dir) {
			d.node("fifo", unix.S_IFIFO|0o666, 0)
			d.node("sock", unix.S_IFSOCK|0o666, 0)
			d.node("dev", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
			d.node("blk", unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0)))
			d.write("suid", "s")
			d.mode("suid", 0o4755)
			d.write("sgid", "s")
			d.mode("sgid", 0o2755)
			d.mode("b", 0o1644)
			d.rm("a")
			d.node("a", unix.S_IFIFO|0o666, 0)
		}, []string{"refused a: it is a FIFO", "refused b: it has a set-id or sticky bit", "refused blk: it is a device",
			"refused dev: it is a device", "refused fifo: it is a FIFO", "refused sgid: it has a set-id or sticky bit",
			"refused sock: it is a socket", "refused suid: it has a set-id or sticky bit"}},
		{"names", func(d dir) {
			d.write("new\nline", "")
			d.write("esc\x1b[2J", "")
			d.write("bad\xff", "")
			d.write("rtl\u202egpj.exe", "")
			d.write("zero\u200bwidth", "")
			d.mkdir("bad\xfe")
			d.write("bad\xfe/in", "")
			d.write("ünïcödé 日本", "")
			d.write(strings.Repeat("n", 255), "")
			d.write("-rf", "")
		}, []string{"added -rf file 0644", "added " + strings.Repeat("n", 255) + " file 0644", "added ünïcödé 日本 file 0644",
			`refused "bad\xfe": its name is not valid UTF-8`, `refused "bad\xff": its name is not valid UTF-8`,
			`refused "esc\x1b[2J": its name holds control or formatting characters`,
			`refused "new\nline": its name holds control or formatting characters`,
			`refused "rtl\u202egpj.exe": its name holds control or formatting characters`,
			`refused "zero\u200bwidth": its name holds control or formatting characters`}},
		{"unreadable", func(d dir) { d.write("priv", "p"); d.mode("priv", 0); d.mkdir("pd"); d.mode("pd", 0) },
			[]string{"added pd dir 0000", "refused pd: it cannot be read with the sandbox's rights",
				"refused priv: it cannot be read with the sandbox's rights"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, fill).change(tt.change)
			set, _, err := b.collect(bounds)
			must(t, err)
			if diff := cmp.Diff(tt.want, list(set)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			again, _, err := b.remount().collect(bounds)
			must(t, err)
			if diff := cmp.Diff(set, again); diff != "" {
				t.Errorf("-the sandbox's mount +mounted anew\n%s", diff)
			}
			if set.Digest != api.Digest(set) {
				t.Error("the digest is another")
			}
		})
	}
}

// What is in the person's way of deleting stays, and with it what holds it.
func TestDeletedNames(t *testing.T) {
	set, _, err := newBox(t, func(d dir) {
		d.mkdir("d/e")
		d.write("d/e/bad\x1b", "")
		d.write("d/e/good", "")
		d.mkdir("r")
		d.write("r/bad\x1b", "")
		d.write("r/good", "")
	}).change(func(d dir) { d.rm("d"); d.rm("r"); d.write("r", "now a file") }).collect(bounds)
	must(t, err)
	const holds = ": it holds what cannot be deleted"
	want := []string{"deleted d/e/good file 0644", `refused "d/e/bad\x1b": its name holds control or formatting characters`,
		`refused "r/bad\x1b": its name holds control or formatting characters`, "refused d" + holds, "refused d/e" + holds,
		"refused r" + holds, "refused r: it replaces what cannot be deleted"}
	if diff := cmp.Diff(want, list(set)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// A set-id file of the person's that was only touched is no change; one whose bytes changed is refused.
func TestOwnSetID(t *testing.T) {
	set, _, err := newBox(t, func(d dir) { d.write("s", "s"); d.mode("s", 0o4755); d.write("t", "t"); d.mode("t", 0o4755) }).
		change(func(d dir) {
			must(d.t, os.Chtimes(d.p("s"), time.Now(), time.Now()))
			d.write("t", "T")
			d.mode("t", 0o4755)
		}).collect(bounds)
	must(t, err)
	if diff := cmp.Diff([]string{"refused t: it has a set-id or sticky bit"}, list(set)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// What the person puts into the folder while the sandbox runs is never listed as deleted, though the sandbox may not see it.
func TestAddedMeanwhile(t *testing.T) {
	b := newBox(t, func(d dir) { d.mkdir("sub"); d.write("sub/x", "x") })
	set, _, err := b.change(func(d dir) {
		for _, n := range []string{"mine", "sub/mine"} {
			if _, err := os.Stat(d.p(n)); err == nil { // now the kernel knows that there is none
				t.Fatal("there already")
			}
		}
		d.write("new", "new")
		d.rm("sub/x")
		dir{t, b.lower}.write("mine", "mine")
		dir{t, b.lower}.write("sub/mine", "mine")
	}).collect(bounds)
	must(t, err)
	if diff := cmp.Diff([]string{"added new file 0644", "deleted sub/x file 0644"}, list(set)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
