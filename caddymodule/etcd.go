package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

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

	// The user, where etcd asks for one. Placeholders such as `{env.ETCD_USER}`
	// are replaced.
	Username string `json:"username,omitempty"`

	// The user's password. Placeholders such as `{env.ETCD_PASSWORD}` are
	// replaced.
	Password string `json:"password,omitempty"`

	// The prefix of all keys. Sandmen with different ones share an etcd and
	// know nothing of each other. Default: `/sandman/v1/`.
	Prefix string `json:"prefix,omitempty"`
}

// EtcdTLS is how etcd's endpoints are reached by TLS.
type EtcdTLS struct {
	// A PEM file with the roots that the servers' certificates lead to.
	// Default: the system's.
	CA string `json:"ca,omitempty"`

	// A PEM file with the certificate that this proxy shows, where etcd asks for
	// one. Default: none.
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
		pair, err := tls.LoadX509KeyPair(e.TLS.Cert, e.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate for etcd: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// key is all that tells one etcd from another.
func (e *Etcd) key() string {
	if e.Embedded {
		return "embedded " + e.Dir
	}
	parts := append([]string{"endpoints", e.Username, e.Password}, e.Endpoints...)
	if e.TLS != nil {
		parts = append(parts, "tls", e.TLS.CA, e.TLS.Cert, e.TLS.Key)
	}
	return strings.Join(parts, "\n")
}

// dial gives a client of a shared etcd. It connects when it is used.
func (e *Etcd) dial(logger *zap.Logger) (*store.Client, error) {
	secure, err := e.secure()
	if err != nil {
		return nil, err
	}
	env := caddy.NewReplacer()
	return store.Dial(store.DialConfig{
		Endpoints: e.Endpoints, Username: env.ReplaceAll(e.Username, ""), Password: env.ReplaceAll(e.Password, ""),
		TLS: secure, Logger: logger,
	})
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
