package caddymodule

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sandman-proxy/sandman/internal/store"
)

// Etcd says where sessions are stored.
type Etcd struct {
	// Whether to run an etcd inside this process, for a Sandman of one process.
	// It opens no socket. Default: true where nothing is said about etcd.
	Embedded bool `json:"embedded,omitempty"`

	// The embedded etcd's folder. Default: `etcd` in the app's data folder.
	Dir string `json:"dir,omitempty"`

	// The members of a shared etcd, as host:port or URL. All proxies with the
	// same endpoints and prefix are one Sandman: they must have the same hosts,
	// too, and none of them can be `local`.
	Endpoints []string `json:"endpoints,omitempty"`

	// How the endpoints are reached by TLS. Default: by TLS with the system's
	// roots where an endpoint is an `https://` URL, else in plain text.
	TLS *EtcdTLS `json:"tls,omitempty"`

	// The user, where etcd asks for one. It needs no more than to read and write
	// what begins with the prefix. Placeholders such as `{env.ETCD_USER}` are
	// replaced.
	Username string `json:"username,omitempty"`

	// The user's password. Placeholders such as `{env.ETCD_PASSWORD}` and
	// `{file./path}` are replaced, anew at each reload.
	Password string `json:"password,omitempty"`

	// The prefix of all keys. Sandmen with different ones share an etcd and
	// know nothing of each other. Default: `/sandman/v1/`.
	Prefix string `json:"prefix,omitempty"`
}

// EtcdTLS is how etcd's endpoints are reached by TLS.
type EtcdTLS struct {
	// A PEM file with the roots that the servers' certificates lead to. It is
	// read anew at a reload. Default: the system's.
	CA string `json:"ca,omitempty"`

	// A PEM file with the certificate that this proxy shows, where etcd asks for
	// one. It is read for each connection, and so can be renewed in place.
	// Default: none.
	Cert string `json:"cert,omitempty"`

	// A PEM file with the certificate's key.
	Key string `json:"key,omitempty"`
}

func (e *Etcd) validate() error {
	switch {
	case e.Embedded && len(e.Endpoints) > 0:
		return errors.New("etcd is either embedded or has endpoints")
	case !e.Embedded && len(e.Endpoints) == 0:
		return errors.New("etcd has no endpoints")
	case e.Embedded && e.TLS != nil:
		return errors.New("an embedded etcd has no connection to secure by tls")
	case (e.Username == "") != (e.Password == ""):
		return errors.New("etcd's user and password go together")
	case e.TLS != nil && (e.TLS.Cert == "") != (e.TLS.Key == ""):
		return errors.New("etcd's tls needs both certificate and key, or none")
	}
	_, err := e.secure()
	return err
}

// secure gives the TLS configuration, nil for plain text.
func (e *Etcd) secure() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.TLS == nil {
		if len(e.Endpoints) > 0 && strings.HasPrefix(e.Endpoints[0], "https://") {
			return cfg, nil
		}
		return nil, nil
	}
	if e.TLS.CA != "" {
		pem, err := os.ReadFile(e.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's roots: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading etcd's roots: %s holds no certificate", e.TLS.CA)
		}
	}
	if e.TLS.Cert != "" {
		if _, err := e.TLS.certificate(nil); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = e.TLS.certificate
	}
	return cfg, nil
}

// certificate reads the files anew for each connection: certificates are
// renewed in place.
func (t *EtcdTLS) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate for etcd: %w", err)
	}
	return &pair, nil
}

// key is all that tells one etcd from another, and changes with the contents of
// files that are read once.
func (e *Etcd) key() string {
	if e.Embedded {
		return "embedded " + e.Dir
	}
	user, password := e.credentials()
	parts := append([]string{"endpoints", user, password}, e.Endpoints...)
	if e.TLS != nil {
		roots, _ := os.ReadFile(e.TLS.CA) // who can't be read is refused by validate
		parts = append(parts, "tls", e.TLS.CA, string(roots), e.TLS.Cert, e.TLS.Key)
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\n"))))
}

// credentials gives user and password, with the placeholders replaced.
func (e *Etcd) credentials() (user, password string) {
	env := caddy.NewReplacer()
	return env.ReplaceAll(e.Username, ""), env.ReplaceAll(e.Password, "")
}

// dial gives a client of a shared etcd. It connects when it is used.
func (e *Etcd) dial(logger *zap.Logger) (*store.Client, error) {
	secure, err := e.secure()
	if err != nil {
		return nil, err
	}
	user, password := e.credentials()
	return store.Dial(store.DialConfig{Endpoints: e.Endpoints, Username: user, Password: password, TLS: secure, Logger: logger})
}

// reach connects to one endpoint after the other, and says why none of them
// lets this proxy in. Nil: one does, as far as TLS goes, or etcd is embedded.
func (e *Etcd) reach(ctx context.Context) error {
	secure, err := e.secure()
	if err != nil {
		return err
	}
	var failed []error
	for _, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		switch {
		case !strings.Contains(endpoint, "://"):
			err = knock(ctx, endpoint, secure)
		case err == nil && (u.Scheme == "http" || u.Scheme == "https"):
			err = knock(ctx, u.Host, secure)
		}
		if err == nil { // also where it is of another kind, such as a unix socket
			return nil
		}
		failed = append(failed, fmt.Errorf("etcd at %s: %w", endpoint, err))
	}
	return errors.Join(failed...)
}

// refusedWithin is how long a server takes at most to refuse the certificate
// of a client whose handshake is over, which TLS 1.3 tells nobody else.
const refusedWithin = 200 * time.Millisecond

func knock(ctx context.Context, address string, secure *tls.Config) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if secure == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	secure = secure.Clone()
	secure.ServerName, secure.NextProtos = host, []string{"h2"}
	client := tls.Client(conn, secure)
	if err := client.HandshakeContext(ctx); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(refusedWithin))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

func (e *Etcd) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0:
		return d.ArgErr()
	case args[0] == "embedded" && len(args) > 2:
		return d.ArgErr()
	case args[0] == "embedded":
		e.Embedded = true
		e.Dir = strings.Join(args[1:], "")
	default:
		e.Endpoints = args
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "tls":
			e.TLS = new(EtcdTLS)
			err = e.TLS.unmarshalCaddyfile(d)
		case "user":
			if !d.Args(&e.Username, &e.Password) || d.NextArg() {
				err = d.ArgErr()
			}
		case "prefix":
			err = oneArg(d, &e.Prefix)
		default:
			err = d.Errf("unrecognized etcd option %s", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalCaddyfile reads tls [<ca> [<cert> <key>]].
func (t *EtcdTLS) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch len(args) {
	case 0:
	case 1:
		t.CA = args[0]
	case 3:
		t.CA, t.Cert, t.Key = args[0], args[1], args[2]
	default:
		return d.ArgErr()
	}
	return nil
}
