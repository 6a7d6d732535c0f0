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

// folderOf gives the folder of an owner's files, with a slash behind it. There are
// no others' in it, so that lists are apart. Where nobody is asked who they are,
// files are in none.
func folderOf(owner execution.Owner) string {
	if owner == "" {
		return ""
	}
	return ownersPrefix + string(owner) + "/"
}

func isOwnersFolder(name string) bool {
	return strings.HasPrefix(name, ownersPrefix) && strings.Count(name, "/") == 1
}

// cutKey gives the key of the file that an object belongs to and what its own key
// has behind that, or says that it is none of ours.
func cutKey(key string) (file, rest string, ours bool) {
	folder, name := path.Split(key)
	id, _, _ := strings.Cut(name, ".")
	return folder + id, strings.TrimPrefix(name, id), execution.IsID(id) && (folder == "" || isOwnersFolder(folder))
}
