package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEtcd_byTLSWithAClientCertificate(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	store := startSecureEtcd(t, ca)
	s := start(t, options{
		idle: clusterIdle, host: startSandboxd(t, "").url,
		caddyfile: etcdBlock(store.endpoint, ca.option("sandman"), "prefix /another/prefix"),
	})
	requireWorks(t, s)
	admin := store.dial(t, clientv3.Config{TLS: store.tls.client(t)})
	got, err := admin.Get(t.Context(), "/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || len(got.Kvs) == 0 {
		t.Fatalf("the keys in etcd: %v, %v", got, err)
	}
	for _, kv := range got.Kvs {
		if !strings.HasPrefix(string(kv.Key), "/another/prefix/") {
			t.Errorf("the key %s is outside the prefix", kv.Key)
		}
	}
}

// Each failure is told in words that say what to put right, and ends without a restart.
func TestEtcd_whoseCertificatesDontFitIsToldAndHeals(t *testing.T) {
	t.Parallel()
	tryRefusals(t, map[string]func(*testing.T) refusal{
		"wrong CA": func(t *testing.T) refusal {
			ca, another := newCA(t), newCA(t)
			store := startSecureEtcd(t, another)
			return refusal{
				store: store, says: "certificate signed by unknown authority",
				options: []string{ca.option("sandman")},
				mend: func(*sandman, options) {
					store.process.kill()
					store.tls = ca.etcd("etcd")
					store.start(t)
				},
			}
		},
		"wrong CA in the file": func(t *testing.T) refusal {
			ca, another := newCA(t), newCA(t)
			store := startSecureEtcd(t, another)
			cert, key := another.issue("sandman")
			return refusal{
				store: store, says: "certificate signed by unknown authority",
				options: []string{fmt.Sprintf("tls %s %s %s", ca.file, cert, key)},
				mend: func(s *sandman, o options) {
					ca.write("ca.pem", "CERTIFICATE", another.cert.Raw)
					s.reload(t, o, "--force")
				},
			}
		},
		"no client certificate": func(t *testing.T) refusal {
			ca := newCA(t)
			store := startSecureEtcd(t, ca)
			return refusal{
				store: store, says: "certificate required",
				options: []string{"tls " + ca.file},
				mend: func(*sandman, options) {
					store.process.kill()
					store.tls.clientCA = ""
					store.start(t)
				},
			}
		},
	})
}

func TestEtcd_whoseUsersDontFitIsToldAndHeals(t *testing.T) {
	t.Parallel()
	tryRefusals(t, map[string]func(*testing.T) refusal{
		"wrong password": func(t *testing.T) refusal {
			store := startEtcd(t)
			root := store.addUsers(t, "the right one")
			return refusal{
				store: store, says: "invalid user ID or password",
				options: []string{"user sandman mistyped"},
				mend: func(*sandman, options) {
					if _, err := root.UserChangePassword(t.Context(), "sandman", "mistyped"); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
		"no user": func(t *testing.T) refusal {
			store := startEtcd(t)
			root := store.addUsers(t, "secret")
			return refusal{
				store: store, says: "user name is empty",
				mend: func(*sandman, options) {
					if _, err := root.AuthDisable(t.Context()); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
		"user without the right": func(t *testing.T) refusal {
			store := startEtcd(t)
			root := store.addUsers(t, "secret")
			if _, err := root.UserRevokeRole(t.Context(), "sandman", "proxies"); err != nil {
				t.Fatal(err)
			}
			return refusal{
				store: store, says: "permission denied",
				options: []string{"user sandman secret"},
				mend: func(*sandman, options) {
					if _, err := root.UserGrantRole(t.Context(), "sandman", "proxies"); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	})
}

func tryRefusals(t *testing.T, refusals map[string]func(*testing.T) refusal) {
	for name, prepare := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prepare(t).try(t)
		})
	}
}

// refusal is an etcd that does not let a proxy in, as it is configured.
type refusal struct {
	store   *etcd
	options []string // of the Caddyfile's etcd
	says    string   // in the status and the log
	mend    func(*sandman, options)
}

func (r refusal) try(t *testing.T) {
	o := options{
		data: filepath.Join(shortDir(t), "d"), idle: clusterIdle, host: startSandboxd(t, "").url,
		caddyfile: etcdBlock(r.store.endpoint, r.options...),
	}
	s := start(t, o)
	eventually(t, late, "a status that says "+r.says, func() bool {
		st := s.status(t)
		return st.Status == "degraded" && !st.Store.OK && strings.Contains(st.Store.Error, r.says)
	})
	t.Logf("the status says %q", s.status(t).Store.Error)
	told := regexp.MustCompile(`"level":"error".*the session store can't be reached.*` + r.says)
	eventually(t, 2*late, "a log that says "+r.says, func() bool { return told.MatchString(s.process.log.String()) })
	r.mend(s, o)
	requireWorks(t, s)
}

// A password that is changed at etcd first cuts the proxies off. A reload with the new one brings them
// back, and meanwhile what runs is served.
func TestEtcd_passwordIsChangedWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	store := startEtcd(t)
	root := store.addUsers(t, "old")
	o := options{
		data: filepath.Join(shortDir(t), "d"), idle: clusterIdle, host: startSandboxd(t, "").url,
		caddyfile: etcdBlock(store.endpoint, "user sandman old"),
	}
	s := start(t, o)
	id, _ := s.startAppIn(t)
	stop := askAllTheTime(t, s, id)
	if _, err := root.UserChangePassword(t.Context(), "sandman", "new"); err != nil {
		t.Fatal(err)
	}
	eventually(t, settled, "a status that tells of the password", func() bool {
		return strings.Contains(s.status(t).Store.Error, "invalid user ID or password")
	})
	o.caddyfile = etcdBlock(store.endpoint, "user sandman new")
	s.reload(t, o)
	eventually(t, settled, "the store in reach", func() bool { return s.status(t).Store.OK })
	stop()
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	s.mustAsk(t, id)
}

// requireWorks fails the test unless a sandbox sleeps in time and wakes.
func requireWorks(t *testing.T, s *sandman) {
	t.Helper()
	eventually(t, settled, "the store in reach", func() bool { return s.status(t).Store.OK })
	id, before := s.startAppIn(t)
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// etcdBlock makes the quick start's etcd one with endpoint and options.
func etcdBlock(endpoint string, options ...string) *strings.Replacer {
	for _, o := range options {
		if strings.HasPrefix(o, "tls") {
			endpoint = "https://" + endpoint
		}
	}
	block := fmt.Sprintf("etcd %s {\n\t\t\t%s\n\t\t}", endpoint, strings.Join(options, "\n\t\t\t"))
	return strings.NewReplacer("etcd {$SANDMAN_ETCD:embedded}", block)
}

// addUsers makes etcd ask for a user: root, and sandman, who may do no more than its prefix takes. It
// gives root's client.
func (e *etcd) addUsers(t *testing.T, password string) *clientv3.Client {
	t.Helper()
	c := e.client(t)
	ctx, prefixEnd := t.Context(), clientv3.GetPrefixRangeEnd(keyPrefix)
	for _, do := range []func() error{
		func() error { _, err := c.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "proxies"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "proxies", keyPrefix, prefixEnd, clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "sandman", password); return err },
		func() error { _, err := c.UserGrantRole(ctx, "sandman", "proxies"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatalf("adding users to etcd: %v", err)
		}
	}
	return e.dial(t, clientv3.Config{Username: "root", Password: "root"})
}

// dial gives a client that shows what the configuration says.
func (e *etcd) dial(t *testing.T, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	cfg.Endpoints, cfg.DialTimeout = []string{e.endpoint}, readyWithin
	client, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// startSecureEtcd starts one with a certificate of the CA, which asks its clients for another.
func startSecureEtcd(t *testing.T, ca *authority) *etcd {
	t.Helper()
	e := newEtcd(t)
	e.tls = ca.etcd("etcd")
	e.start(t)
	return e
}

// etcdTLS is what an etcd by TLS is told of certificates.
type etcdTLS struct {
	ca        *authority
	cert, key string
	clientCA  string // "": clients need none
}

func (e *etcdTLS) arguments() []string {
	return []string{"-cert", e.cert, "-key", e.key, "-client-ca", e.clientCA}
}

// client is the TLS of a client that etcd lets in.
func (e *etcdTLS) client(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(e.ca.issue("test"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(e.ca.cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// authority is a CA of a test's own, whose certificates are files.
type authority struct {
	t    *testing.T
	dir  string
	file string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.make("ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
	return a
}

// etcd gives a server's certificate, and that clients must have one of this CA, too.
func (a *authority) etcd(name string) *etcdTLS {
	cert, key := a.issue(name)
	return &etcdTLS{ca: a, cert: cert, key: key, clientCA: a.file}
}

// option is the Caddyfile's tls, with a certificate for the name.
func (a *authority) option(name string) string {
	cert, key := a.issue(name)
	return fmt.Sprintf("tls %s %s %s", a.file, cert, key)
}

// issue makes a certificate for loopback, for servers and clients, and gives the names of the files.
func (a *authority) issue(name string) (cert, key string) {
	return a.make(name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// make signs the certificate, by itself where there is no CA yet.
func (a *authority) make(name string, template *x509.Certificate) (certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.Subject = pkix.Name{CommonName: name}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = key
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+"-key.pem", "PRIVATE KEY", secret)
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	name = filepath.Join(a.dir, name)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}
