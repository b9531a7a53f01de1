package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/demo"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process/processconnect"
	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	// demoVariable asks for the demo sandbox; `xcaddy.sh run` sets it.
	demoVariable = "SANDMAN_DEMO"
	// demoTemplate is how a later start finds the demo sandbox again.
	demoTemplate = "sandman-demo"
	// demoTag names the editor among the sandbox's commands.
	demoTag = "editor"
	// demoWithin bounds the making.
	demoWithin = time.Minute
)

// demos keeps one maker for each data folder, so that a reload makes no second
// sandbox.
var demos = caddy.NewUsagePool()

// provisionDemo makes the demo sandbox once the server has started, where the
// environment asks for it. No failure of it is the server's.
func (a *App) provisionDemo(ctx caddy.Context) error {
	if wanted := os.Getenv(demoVariable); wanted == "" || wanted == "0" || wanted == "false" {
		return nil
	}
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("the events app: %w", err)
	}
	return events.(*caddyevents.App).On("started", demoStarter{a})
}

// demoStarter is called when all apps have started.
type demoStarter struct{ app *App }

// Handle implements caddyevents.Handler. Who emits the event waits for it.
func (s demoStarter) Handle(context.Context, caddy.Event) error {
	a := s.app
	_, _, err := demos.LoadOrNew(a.Data, func() (caddy.Destructor, error) {
		ctx, cancel := context.WithTimeout(context.Background(), demoWithin)
		m := &demoMaker{app: a, engine: a.running, logger: a.logger.Named("demo"), cancel: cancel, done: make(chan struct{})}
		go m.run(ctx)
		return m, nil
	})
	a.demo = err == nil
	return err
}

// stopDemo must be called before the engine is given up.
func (a *App) stopDemo() {
	if a.demo {
		a.demo = false
		_, _ = demos.Delete(a.Data) // Destruct can't fail
	}
}

// demoMaker makes or finds the demo sandbox, and starts the editor in it.
type demoMaker struct {
	app    *App
	engine *runningEngine
	local  *localHost
	logger *zap.Logger
	cancel context.CancelFunc
	done   chan struct{}
}

// Destruct implements caddy.Destructor.
func (m *demoMaker) Destruct() error {
	m.cancel()
	<-m.done
	return nil
}

func (m *demoMaker) run(ctx context.Context) {
	defer close(m.done)
	defer m.cancel()
	sb, err := m.make(ctx)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return // the server is being stopped
	case err != nil:
		m.logger.Warn("there is no demo sandbox", zap.Error(err))
	}
	fmt.Print(m.welcome(sb, err))
}

func (m *demoMaker) make(ctx context.Context) (api.Sandbox, error) {
	host, ok := m.engine.hosts[0].Host.(namedHost)
	if !ok {
		return api.Sandbox{}, errors.New("it needs the host local, and another one is configured")
	}
	m.local = host.localHost
	if err := m.engine.Ready(ctx); err != nil {
		return api.Sandbox{}, fmt.Errorf("waiting for the session store: %w", err)
	}
	sb, err := m.findOrCreate(ctx)
	if err != nil {
		return api.Sandbox{}, err
	}
	if sb.State != session.Running && m.isFurnished(sb.SandboxID) {
		return sb, nil // its first visitor wakes it
	}
	release, _, err := m.engine.Use(ctx, sb.SandboxID, 0, "the demo")
	if err != nil {
		return api.Sandbox{}, fmt.Errorf("waking sandbox %q: %w", sb.SandboxID, err)
	}
	defer release()
	if err := m.furnish(ctx, sb.SandboxID); err != nil {
		return api.Sandbox{}, fmt.Errorf("starting the editor in sandbox %q: %w", sb.SandboxID, err)
	}
	return sb, os.WriteFile(m.marker(), []byte(sb.SandboxID+"\n"), 0o600)
}

// findOrCreate asks the host and not the records: it knows what still lives.
func (m *demoMaker) findOrCreate(ctx context.Context) (api.Sandbox, error) {
	all, err := m.local.API().List(ctx)
	if err != nil {
		return api.Sandbox{}, err
	}
	for _, s := range all {
		if s.TemplateID == demoTemplate {
			sb, _, err := m.engine.Register(ctx, s.SandboxID, "")
			return sb, err
		}
	}
	return m.engine.Create(ctx, e2b.NewSandbox{TemplateID: demoTemplate}, "")
}

// marker names the file that holds the ID of the sandbox whose editor was
// started. One that sleeps can't be asked.
func (m *demoMaker) marker() string { return filepath.Join(m.app.Data, "demo") }

func (m *demoMaker) isFurnished(id string) bool {
	b, err := os.ReadFile(m.marker())
	return err == nil && strings.TrimSpace(string(b)) == id
}

// furnish starts the editor in a sandbox that runs, unless it is there.
func (m *demoMaker) furnish(ctx context.Context, id string) error {
	envd, token, err := m.envd(ctx, id)
	if err != nil {
		return err
	}
	list := connect.NewRequest(&process.ListRequest{})
	list.Header().Set(headerEnvdToken, token)
	commands, err := envd.List(ctx, list)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(commands.Msg.GetProcesses(), func(p *process.ProcessInfo) bool { return p.GetTag() == demoTag }) {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	tag, stdin := demoTag, false
	start := connect.NewRequest(&process.StartRequest{
		Process: &process.ProcessConfig{Cmd: self, Args: []string{demoCommand, "--port", strconv.Itoa(demoPort())}},
		Tag:     &tag, Stdin: &stdin,
	})
	start.Header().Set(headerEnvdToken, token)
	// The command outlives this call, but not the call's deadline, which is sent
	// along: there must be none.
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	events, err := envd.Start(call, start)
	if err != nil {
		return err
	}
	defer events.Close()
	return awaitEditor(events)
}

// headerEnvdToken carries the token of a sandbox's daemon.
const headerEnvdToken = "X-Access-Token"

// envd gives a client of the sandbox's daemon, and the token that it wants.
func (m *demoMaker) envd(ctx context.Context, id string) (client processconnect.ProcessClient, token string, err error) {
	detail, err := m.local.API().Get(ctx, id)
	if err != nil {
		return nil, "", err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return m.local.host.DialContext(ctx, id, envdPort)
		},
	}
	return processconnect.NewProcessClient(&http.Client{Transport: transport}, "http://envd"), detail.EnvdAccessToken, nil
}

// awaitEditor returns when the editor says that it listens, or how it failed.
func awaitEditor(events *connect.ServerStreamForClient[process.StartResponse]) error {
	var said strings.Builder
	for events.Receive() {
		ev := events.Msg().GetEvent()
		said.Write(ev.GetData().GetStdout())
		said.Write(ev.GetData().GetStderr())
		if strings.Contains(said.String(), demo.Listening) {
			return nil
		}
		if end := ev.GetEnd(); end != nil {
			return fmt.Errorf("it ended with %s: %s", end.GetStatus(), strings.TrimSpace(said.String()))
		}
	}
	return errors.Join(errors.New("it did not say that it listens"), events.Err())
}

// welcome is what a person sees once all is running. The token itself is not
// part of it: what is printed gets into logs.
func (m *demoMaker) welcome(sb api.Sandbox, failed error) string {
	origin := "localhost"
	if port := portVariable(); port != "80" {
		origin += ":" + port
	}
	var b strings.Builder
	b.WriteString("\n")
	line := func(name, text string) { fmt.Fprintf(&b, "  %-9s %s\n", name, text) }
	if failed != nil {
		line("Editor", "there is none: "+failed.Error())
		line("", "Sandman itself is running.")
	} else {
		line("Editor", fmt.Sprintf("http://%d-%s.%s/", demoPort(), sb.SandboxID, origin))
	}
	line("Dashboard", "http://"+origin+"/")
	line("API", "http://"+origin+"/api/v1/openapi.json")
	token := `"$SANDMAN_TOKEN"`
	if slices.ContainsFunc(m.app.Tokens, func(t Token) bool { return t.Secret == "generate" }) {
		token = `"$(cat ` + quoted(filepath.Join(m.app.Data, "token")) + `)"`
		line("Token", "in "+quoted(filepath.Join(m.app.Data, "token")))
	}
	if failed == nil {
		b.WriteString("\n")
		idle := time.Duration(sb.IdleTimeout)
		line("Sleep", fmt.Sprintf("Leave the editor alone for %s, and its sandbox is paused. The next key wakes it.", idle))
		if idle > 2*time.Minute {
			line("", "Sooner: SANDMAN_IDLE_TIMEOUT=30s ./xcaddy.sh run")
		}
		line("Look", fmt.Sprintf("curl --oauth2-bearer %s http://%s/api/v1/sandboxes/%s", token, origin, sb.SandboxID))
	}
	line("End", "Ctrl+C. The sandbox stays, and the next start finds it again.")
	b.WriteString("\n")
	return b.String()
}

// portVariable is the port of the repository's Caddyfile.
func portVariable() string {
	if port := os.Getenv("SANDMAN_PORT"); port != "" {
		return port
	}
	return "8080"
}

// quoted is a file's name as a shell takes it.
func quoted(name string) string {
	if strings.ContainsAny(name, " '\"$\\`&;()") {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// Interface guards
var (
	_ caddyevents.Handler = demoStarter{}
	_ caddy.Destructor    = (*demoMaker)(nil)
)
