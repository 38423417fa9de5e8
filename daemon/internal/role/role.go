// Package role is the privilege table: which processes there are, as whom each runs, what it sees of the host, and
// which messages it may say to whom.
//
// closedpawd is one binary that executes itself once per row. What a row does not list, its process cannot do: its
// root folder holds just the row's binds, it has no capability, and a message that the table does not permit between
// two roles ends the connection, and with it the role. The package decides nothing and opens nothing but sockets.
package role

// Name is a role's name, as argv shows it: closedpawd -role NAME.
type Name string

// The roles. Launcher is root; all others are ordinary users of their own.
const (
	Launcher Name = "launcher"
	Control  Name = "control"
	Audit    Name = "audit"
	Gateway  Name = "gateway"
	Agent    Name = "agent"
	Review   Name = "review"
)

// Row is all that a role may have.
type Row struct {
	User  string   // system user; in -dev mode a free uid stands for it. Review has none: it runs as its sandbox's user
	Net   bool     // keeps the host's network; all others are in an empty network namespace
	Binds []Bind   // all that its root folder holds
	Links []Name   // to whom it talks, in the order of its descriptors from FirstFD on
	Extra []string // further descriptors after the links, for the reader: what they are
}

// Bind is one thing of the host in a role's root folder.
type Bind struct {
	Source string // one of the keys of the launcher's paths: "etc", "state", "log", "resolv", "ca", "hosts", "nsswitch"
	Target string // absolute, in the role's root
	Dir    bool
	Write  bool
}

// FirstFD is the first descriptor that a role is handed; 0 and 1 are /dev/null, 2 is the log, 3 is its own executable
// in stage 1 and closed afterwards.
const FirstFD = 4

// Table is the whole of it. Vault has no row yet: what is not there is not offered.
var Table = map[Name]Row{
	Control: {User: "closedpaw", Links: []Name{Launcher, Audit, Gateway}, Binds: []Bind{
		{Source: "etc", Target: "/etc/closedpaw", Dir: true},
		{Source: "state", Target: "/state", Dir: true, Write: true},
	}},
	Audit: {User: "closedpaw-audit", Links: []Name{Control}, Binds: []Bind{
		{Source: "log", Target: "/log", Dir: true, Write: true},
	}},
	Gateway: {User: "closedpaw-gateway", Net: true, Links: []Name{Control}, Binds: []Bind{
		{Source: "resolv", Target: "/etc/resolv.conf"},
		{Source: "hosts", Target: "/etc/hosts"},
		{Source: "nsswitch", Target: "/etc/nsswitch.conf"},
		{Source: "ca", Target: "/etc/ssl/certs/ca-certificates.crt"},
	}},
	Agent:  {User: "closedpaw-agent", Links: []Name{Control}},
	Review: {Links: []Name{Control}, Extra: []string{"lower", "upper", "merged"}},
}
