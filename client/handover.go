package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// maxHeader bounds the answer to an upgrade, and the line that answers a handover.
const maxHeader = 64 << 10

// HandFolder hands an open folder over and returns the token for AskRequest.Folder or RunRequest.Folder.
func (c *Client) HandFolder(ctx context.Context, folder *os.File) (string, error) {
	token, err := c.hand(ctx, "folder", folder)
	if err != nil {
		return "", fmt.Errorf("cannot hand over the folder %s: %w", folder.Name(), err)
	}
	return token, nil
}

// HandStdio hands over the ends of three pipes that become a command's standard streams and returns the token for
// RunRequest.Stdio. The caller closes its copies.
func (c *Client) HandStdio(ctx context.Context, in, out, err *os.File) (string, error) {
	token, e := c.hand(ctx, "stdio", in, out, err)
	if e != nil {
		return "", fmt.Errorf("cannot hand over the standard streams: %w", e)
	}
	return token, nil
}

func (c *Client) hand(ctx context.Context, kind string, files ...*os.File) (string, error) {
	conn, err := c.upgrade(ctx, "/v1/handover?kind="+kind)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := conn.WriteMsgUnix([]byte("D"), unix.UnixRights(fds...), nil); err != nil {
		return "", c.noAnswer(ctx, err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxHeader)).ReadBytes('\n')
	if err != nil {
		return "", c.noAnswer(ctx, err)
	}
	var h api.Handover
	if err := json.Unmarshal(line, &h); err != nil {
		return "", fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case h.Error != nil:
		return "", h.Error
	case h.Token == "":
		return "", ErrProtocol
	}
	return h.Token, nil
}

// upgrade makes a request that leaves HTTP and returns its connection. It reads the answer byte by byte: the kernel
// would drop descriptors that come with bytes behind it.
func (c *Client) upgrade(ctx context.Context, path string) (*net.UnixConn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = c.leaveHTTP(ctx, conn, path)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c *Client) leaveHTTP(ctx context.Context, conn *net.UnixConn, path string) error {
	req := "POST " + path + " HTTP/1.1\r\nHost: " + api.Host + "\r\nConnection: Upgrade\r\nUpgrade: " + api.UpgradeProtocol + "\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(conn, req); err != nil {
		return c.noAnswer(ctx, err)
	}
	var head []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if len(head) >= maxHeader {
			return ErrProtocol
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return c.noAnswer(ctx, err)
		}
		head = append(head, b...)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(head), conn)), nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		return readError(resp)
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("%w (status %d to an upgrade)", ErrProtocol, resp.StatusCode)
	}
	return nil
}

// Files are the approved files of a session, as the daemon sends them.
type Files struct {
	conn *net.UnixConn
	stop func() bool
	n    int
	end  bool
}

// ChangedFiles asks for the approved files, after an apply event. Close it.
func (c *Client) ChangedFiles(ctx context.Context, session string) (*Files, error) {
	conn, err := c.upgrade(ctx, "/v1/sessions/"+url.PathEscape(session)+"/changes")
	if err != nil {
		return nil, fmt.Errorf("cannot fetch the approved files: %w", err)
	}
	return &Files{conn: conn, stop: context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

// Next returns the next file, read-only, for the caller to close; io.EOF after the last one. Only as many descriptors
// are open as the caller keeps: the others wait in the socket.
func (f *Files) Next() (*os.File, error) {
	if f.end {
		return nil, io.EOF
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, flags, _, err := f.conn.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("cannot fetch the approved files: %w", errors.Join(ErrCutOff, err))
	}
	fds := descriptors(oob[:oobn])
	if b[0] == 'E' && len(fds) == 0 {
		f.end = true
		return nil, io.EOF
	}
	if b[0] == '{' && len(fds) == 0 {
		return nil, f.refused()
	}
	if b[0] != 'F' || len(fds) != 1 || flags&unix.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("cannot fetch the approved files: %w", ErrProtocol)
	}
	f.n++
	return os.NewFile(uintptr(fds[0]), fmt.Sprintf("approved file %d", f.n)), nil
}

// refused reads the Handover that says why the daemon cannot go on; its first byte was read.
func (f *Files) refused() error {
	f.end = true
	var h api.Handover
	d := json.NewDecoder(io.LimitReader(io.MultiReader(bytes.NewReader([]byte("{")), f.conn), maxHeader))
	if err := d.Decode(&h); err != nil || h.Error == nil {
		return fmt.Errorf("cannot fetch the approved files: %w", errors.Join(ErrProtocol, err))
	}
	return fmt.Errorf("cannot fetch the approved files: %w", h.Error)
}

// Close ends the transfer.
func (f *Files) Close() error {
	f.stop()
	return f.conn.Close()
}

func descriptors(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for _, m := range msgs {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}
