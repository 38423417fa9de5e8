# From the output of "go test -v": the line of each package, all of a package that failed, and each skipped test with
# its reason. What a package says is held back until its own line comes.
function flush_all(  i) { for (i = 1; i <= n; i++) if (line[i] !~ /^ *(=== |--- PASS)/) print line[i] }
function flush_skips(  i) {
	for (i = 1; i <= n; i++) if (line[i] ~ /^ *--- SKIP/) {
		print line[i]
		if (i > 1 && line[i - 1] !~ /^ *(=== |---)/) print line[i - 1]
		else if (i < n && line[i + 1] !~ /^ *(=== |---|PASS)/) print line[i + 1]
	}
}
/no test files\]$/ { next }
/^ok *\t/ { flush_skips(); n = 0; print; fflush(); next }
/^(FAIL|---)\t/ { flush_all(); n = 0; print; fflush(); next }
{ line[++n] = $0 }
END { flush_all() }
