package filestore

import (
	"path"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	metaSuffix = ".json"
	// ownersPrefix begins the name of each owner's folder.
	ownersPrefix = "of-"
)

// folderOf returns the folder of an owner's files, with a slash at its end. Each owner
// has a folder, so that a list reads only the owner's files. Without authentication there
// is no owner, and files are in no folder.
func folderOf(owner execution.Owner) string {
	if owner == "" {
		return ""
	}
	return ownersPrefix + string(owner) + "/"
}

func isOwnersFolder(name string) bool {
	return strings.HasPrefix(name, ownersPrefix) && strings.Count(name, "/") == 1
}

// cutKey splits the key of an object into that of its file and the rest. It reports
// whether the object belongs to a file of a store.
func cutKey(key string) (file, rest string, ours bool) {
	folder, name := path.Split(key)
	id, _, _ := strings.Cut(name, ".")
	return folder + id, strings.TrimPrefix(name, id), execution.IsID(id) && (folder == "" || isOwnersFolder(folder))
}
