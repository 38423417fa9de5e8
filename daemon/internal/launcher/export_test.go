package launcher

// ParseMounts returns how many mounts it understood.
func ParseMounts(text string) (int, error) {
	m, err := parseMounts(text)
	return len(m), err
}

// Free says whether nobody has one of a sandbox's users.
var Free = free

// Below is where a cgroup's path is under a mount that shows root at point.
func Below(root, point, path string) string { return below(mountLine{root: root, point: point}, path) }
