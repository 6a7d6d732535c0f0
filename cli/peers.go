package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/httpapi"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// peers are the other servers that this one shares its sessions with.
type peers struct {
	execution.Holders
	address     string // of this server for them
	credentials *link.Credentials
	transport   *http.Transport
}

// peerPatience is how long a server that ends may take from its last answer until its Lease is seen to be gone.
const peerPatience = 5 * time.Second

// newPeers returns the servers that share sessions with this one, or nil if there are none.
func newPeers(c config.Config, b backend) (*peers, error) {
	holders, shared := b.(execution.Holders)
	if !shared || c.PeerAddress() == "" {
		return nil, nil //nolint:nilnil // there are none
	}
	credentials, err := link.LoadCredentials(c.KubernetesLinkDir)
	if err == nil {
		err = credentials.CheckPeer()
	}
	if err != nil {
		return nil, fmt.Errorf("KUBERNETES_LINK_DIR is %q: %w", c.KubernetesLinkDir, err)
	}
	return &peers{
		Holders: holders, address: c.PeerAddress(), credentials: credentials,
		transport: httpapi.NewPeerTransport(link.NewDialer(), credentials.PeerClient()),
	}, nil
}

// Ask implements [session.Handover].
func (p *peers) Ask(ctx context.Context, held *execution.HeldError) error {
	if held.Peer == "" {
		return errors.New("it has announced no address")
	}
	return httpapi.AskRelease(ctx, p.transport, held)
}

// door returns the settings of the HTTP API for requests of these servers.
func (p *peers) door(release func(ctx context.Context, id string) error) *httpapi.Peers {
	return &httpapi.Peers{
		Holder: p.Holder, Peer: p.Peer, ServerOf: transport.ServerOf, Release: release, Transport: p.transport, Patience: peerPatience,
	}
}

// peerDoor is the interface of this server for others.
type peerDoor struct {
	listener net.Listener
	server   *http.Server
	peers    *httpapi.Peers
}

// open opens the port for other servers, beside that for clients.
func (p *peers) open(ctx context.Context, clients *http.Server, door *httpapi.Peers, log *slog.Logger) (*peerDoor, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return nil, fmt.Errorf("POD_IP and PEER_PORT: %w", err)
	}
	return &peerDoor{tls.NewListener(listener, p.credentials.PeerServer()), httpapi.NewPeerServer(clients, door, log), door}, nil
}

// warnAlone warns where other servers share the sessions of this one, and cannot reach it.
func (s *service) warnAlone() {
	if _, shared := s.backend.(execution.Holders); shared && s.peers == nil {
		s.log.Warn("other servers take sessions over from this one, and end their calls: PEER_PORT is 0, or POD_IP is not set")
	}
}

// instance returns the name of this server among those that clients may reach, or "" if they reach
// no others.
func (s *service) instance() string {
	if s.peers == nil {
		return ""
	}
	return s.backend.InstanceID()
}
