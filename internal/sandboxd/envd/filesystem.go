package envd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/filesystem"
)

// filesystemService is filesystem.Filesystem.
type filesystemService struct{ *server }

// Stat describes one file or folder.
func (s *filesystemService) Stat(_ context.Context, req *connect.Request[filesystem.StatRequest]) (*connect.Response[filesystem.StatResponse], error) {
	e, err := s.entry(s.resolve(req.Msg.GetPath()))
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&filesystem.StatResponse{Entry: e}), nil
}

// MakeDir makes a folder and its parents. One that exists is an error, by which
// SDKs tell whether they made it.
func (s *filesystemService) MakeDir(_ context.Context, req *connect.Request[filesystem.MakeDirRequest]) (*connect.Response[filesystem.MakeDirResponse], error) {
	path := s.resolve(req.Msg.GetPath())
	if info, err := os.Stat(path); err == nil {
		if info.IsDir() {
			return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("directory already exists: %s", s.display(path)))
		}
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("path is a file: %s", s.display(path)))
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fileError(err)
	}
	e, err := s.entry(path)
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&filesystem.MakeDirResponse{Entry: e}), nil
}

// Move renames a file or folder, making the parents of where it goes.
func (s *filesystemService) Move(_ context.Context, req *connect.Request[filesystem.MoveRequest]) (*connect.Response[filesystem.MoveResponse], error) {
	from, to := s.resolve(req.Msg.GetSource()), s.resolve(req.Msg.GetDestination())
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return nil, fileError(err)
	}
	if err := os.Rename(from, to); err != nil {
		return nil, fileError(err)
	}
	e, err := s.entry(to)
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&filesystem.MoveResponse{Entry: e}), nil
}

// ListDir lists a folder, by default only its own entries.
func (s *filesystemService) ListDir(_ context.Context, req *connect.Request[filesystem.ListDirRequest]) (*connect.Response[filesystem.ListDirResponse], error) {
	dir := s.resolve(req.Msg.GetPath())
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fileError(err)
	}
	if !info.IsDir() {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("path is not a directory: %s", s.display(dir)))
	}
	entries, err := s.list(dir, max(req.Msg.GetDepth(), 1), nil)
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&filesystem.ListDirResponse{Entries: entries}), nil
}

func (s *server) list(dir string, depth uint32, to []*filesystem.EntryInfo) ([]*filesystem.EntryInfo, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		e, err := s.entry(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		to = append(to, e)
		if n.IsDir() && depth > 1 {
			if to, err = s.list(path, depth-1, to); err != nil {
				return nil, err
			}
		}
	}
	return to, nil
}

// Remove removes a file or a folder with all that is in it. What isn't there is
// no error.
func (s *filesystemService) Remove(_ context.Context, req *connect.Request[filesystem.RemoveRequest]) (*connect.Response[filesystem.RemoveResponse], error) {
	path := s.resolve(req.Msg.GetPath())
	// an empty path is the home folder, and "/" the whole machine
	if _, above := below(path, s.cfg.Home); above || path == "/" {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("not removing %s", s.display(path)))
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&filesystem.RemoveResponse{}), nil
}

// entry describes a path itself; a symbolic link is not followed.
func (s *server) entry(path string) (*filesystem.EntryInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	e := &filesystem.EntryInfo{
		Name:         info.Name(),
		Path:         s.display(path),
		Type:         fileType(info.Mode()),
		Size:         info.Size(),
		Mode:         uint32(info.Mode().Perm()),
		Permissions:  info.Mode().String(),
		ModifiedTime: timestamppb.New(info.ModTime()),
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.Owner, e.Group = owner(st.Uid), group(st.Gid)
	}
	if target, err := os.Readlink(path); err == nil {
		target = s.display(target)
		e.SymlinkTarget = &target
	}
	return e, nil
}

func fileType(m fs.FileMode) filesystem.FileType {
	switch {
	case m.IsRegular():
		return filesystem.FileType_FILE_TYPE_FILE
	case m.IsDir():
		return filesystem.FileType_FILE_TYPE_DIRECTORY
	case m&fs.ModeSymlink != 0:
		return filesystem.FileType_FILE_TYPE_SYMLINK
	default:
		return filesystem.FileType_FILE_TYPE_UNSPECIFIED
	}
}

func owner(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func group(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// fileError gives an error of the file system the code by which SDKs know it.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, fs.ErrExist):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, fs.ErrPermission):
		return connect.NewError(connect.CodePermissionDenied, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EINVAL):
		return connect.NewError(connect.CodeInvalidArgument, err)
	default:
		return connect.NewError(connect.CodeInternal, err)
	}
}
