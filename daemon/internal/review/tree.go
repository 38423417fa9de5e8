package review

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// within keeps every opening inside of the tree: no way up, no symbolic link, no other mount.
const within = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openAt opens a path below dir. Nothing of it may be a symbolic link; opening a FIFO does not block.
func openAt(dir *os.File, p string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK, Resolve: within}
	if flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NONBLOCK
	}
	for range 64 { // the kernel asks to try again when it saw a rename on the way
		fd, err := unix.Openat2(int(dir.Fd()), p, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), p), nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return nil, fmt.Errorf("cannot open %.200q: %w", p, err)
		}
	}
	return nil, fmt.Errorf("cannot open %.200q: %w", p, unix.EAGAIN)
}

func openDir(dir *os.File, p string) (*os.File, error) {
	return openAt(dir, p, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openFile opens a regular file for reading.
func openFile(dir *os.File, p string) (*os.File, error) {
	f, err := openAt(dir, p, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, fmt.Errorf("cannot open %.200q: not a regular file", p)
	}
	return f, nil
}

// stat looks at one name of dir, which has no slash; ok is false if there is none.
func stat(dir *os.File, name string) (st unix.Stat_t, ok bool, err error) {
	err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	return st, err == nil, err
}

func readlink(dir *os.File, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// sum is what is known of a file's bytes.
type sum struct {
	hash string // hex
	size int64
	text bool // UTF-8 without NUL
}

// digest reads a file to its end; more is called before each piece and may stop it.
func digest(f io.Reader, buf []byte, more func(n int) error) (sum, error) {
	h, text := sha256.New(), utf8Reader{ok: true}
	var size int64
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := more(n); err != nil {
				return sum{}, err
			}
			h.Write(buf[:n])
			text.write(buf[:n])
			size += int64(n)
		}
		if err == io.EOF {
			return sum{hash: hexSum(h), size: size, text: text.ok && len(text.rest) == 0}, nil
		}
		if err != nil {
			return sum{}, err
		}
	}
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func hexOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// utf8Reader tells text from other bytes piece by piece; a character may be cut by the end of a piece.
type utf8Reader struct {
	ok   bool
	rest []byte
}

func (u *utf8Reader) write(b []byte) {
	if !u.ok {
		return
	}
	for len(u.rest) > 0 && len(b) > 0 && !utf8.FullRune(u.rest) {
		u.rest, b = append(u.rest, b[0]), b[1:]
	}
	if !utf8.FullRune(u.rest) && len(u.rest) > 0 {
		return
	}
	if !isText(u.rest) {
		u.ok = false
		return
	}
	end := len(b)
	for i := 1; i <= min(utf8.UTFMax-1, len(b)); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				end = len(b) - i
			}
			break
		}
	}
	u.ok = isText(b[:end])
	u.rest = append(u.rest[:0], b[end:]...)
}

func isText(b []byte) bool {
	for _, c := range b {
		if c == 0 {
			return false
		}
	}
	return utf8.Valid(b)
}
