package link_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

func inFolder(text, folder string) string { return strings.ReplaceAll(text, "FOLDER", folder) }

func TestWriteIdentity(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity")
	pin, err := link.WriteIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := os.Stat(file); err != nil || status.Mode() != 0o400 {
		t.Errorf("its mode is %v (%v)", status.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "-----BEGIN PRIVATE KEY-----\n") {
		t.Errorf("it begins with %.30q (%v)", text, err)
	}
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is %T", pair.PrivateKey)
	}
	if _, err := link.ParseFacts(`{"v":1,"key":"` + pin + `"}`); err != nil {
		t.Error(err)
	}
	_, err = link.WriteIdentity(file)
	wantError(t, err, fs.ErrExist, file)
	other, err := link.WriteIdentity(file + "2")
	if err != nil || other == pin {
		t.Errorf("another pod has the pin %s (%v)", other, err)
	}
}

func TestLoadCA(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	again, err := link.LoadCA(append(append([]byte{}, other.Certificate...), ca.Certificate...), ca.Key)
	if err != nil || string(again.Certificate) != string(ca.Certificate) {
		t.Errorf("its certificate is %s (%v)", again.Certificate, err)
	}
	_, err = link.LoadCA(other.Certificate, ca.Key)
	wantText(t, err, "the key of the CA belongs to none of its certificates")
	_, err = link.LoadCA(ca.Certificate, []byte("x"))
	wantText(t, err, "the key of the CA must be PEM")
	_, err = link.LoadCA(nil, ca.Key)
	wantText(t, err, "the certificate of the CA: must be certificates as PEM")
}

func TestParseFacts(t *testing.T) {
	pin := "sha256:" + strings.Repeat("0a", 32)
	got, err := link.ParseFacts(`{"v":1,"key":"` + pin + `","kernel":"6.8.0","arch":"amd64","userns":true,"netns":true,"cgroup":2,"oomgroup":true}`)
	want := link.Facts{Version: 1, Key: pin, Kernel: "6.8.0", Arch: "amd64", UserNS: true, NetNS: true, Cgroup: 2, OOMGroup: true}
	if err != nil || got != want {
		t.Errorf("%+v (%v)", got, err)
	}
	for text, want := range map[string]string{
		"":                                `the facts of the pod are "": must be JSON`,
		"exec: not found":                 `the facts of the pod are "exec: not found": must be JSON`,
		`{"v":2}`:                         "the facts of the pod have version 2: must be 1",
		`{"v":1}`:                         `the key in the facts of the pod is ""`,
		`{"v":1,"key":"sha256:00"}`:       `the key in the facts of the pod is "sha256:00"`,
		`{"v":1,"key":"` + pin[7:] + `"}`: "must be sha256: and 64 hexadecimal digits",
	} {
		_, err := link.ParseFacts(text)
		wantText(t, err, want)
	}
}
