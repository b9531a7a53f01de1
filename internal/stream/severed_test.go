package stream_test

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// cutHow are the ways in which a host cuts a stream at a pause.
var cutHow = map[string]func(*tunnel){
	"after the news": func(tun *tunnel) { tun.body.Park(); synctest.Wait(); _ = tun.app.Close() },
	"before the news": func(tun *tunnel) {
		_ = tun.app.Close()
		time.Sleep(time.Second / 2)
		tun.body.Park()
	},
}

// paused is an OnUpstreamEnd that waits for the news, as an owner does.
func paused(ctx context.Context) bool {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return false
}

func TestSevered_wakesFirstAndClosesThen(t *testing.T) {
	for name, cut := range cutHow {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tun := dig(t, stream.Options{OnUpstreamEnd: paused})
				cut(tun)
				time.Sleep(time.Hour)
				tun.send(ping1, noise, gulp)
				tun.wantAtClient("without an upstream", pong1)
				awake := make(chan error)
				tun.wake = func() error { return <-awake }
				tun.send(key)
				tun.wantAtClient("while it wakes")
				awake <- nil
				tun.wantAtClient("awake", closing(1012, "the sandbox was paused"))
				tun.wantCounted("a key", 1)
				tun.wantEnd()
			})
		})
	}
}

func TestSevered_isClosedByTheWakeOfAnother(t *testing.T) {
	for name, cut := range cutHow {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tun := dig(t, stream.Options{OnUpstreamEnd: paused})
				cut(tun)
				synctest.Wait()
				tun.body.Unpark()
				tun.wantAtClient("awake", closing(1012, "the sandbox was paused"))
				tun.wantCounted("by another", 0)
				tun.wantEnd()
			})
		})
	}
}

func TestSevered_showsOnlyAfterTheWake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{OnUpstreamEnd: func(context.Context) bool {
			t.Error("the owner was asked about a stream that was parked")
			return false
		}})
		tun.body.Park()
		tun.body.Unpark()
		_ = tun.app.Close()
		tun.wantAtClient("awake", closing(1012, "the sandbox was paused"))
		tun.wantEnd()
	})
}

func TestSevered_inTheMiddleOfAFrameIsNoParking(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{OnUpstreamEnd: paused})
		_, _ = tun.app.Write(hello[:3])
		tun.body.Park()
		tun.send(ping1) // can't be answered within a frame
		_ = tun.app.Close()
		tun.wantAtClient("cut", hello[:3])
		tun.wantEnd()
	})
}

func TestSevered_notByAnEndThatIsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{OnUpstreamEnd: paused})
		began := time.Now()
		_ = tun.app.Close()
		<-tun.ended
		if took := time.Since(began); took != time.Second {
			t.Errorf("the client saw the end after %v", took)
		}
		tun.wantAtClient("in the end")
	})
}

func TestClose_endsAStreamInEachState(t *testing.T) {
	states := map[string]func(*tunnel){
		"dormant":         func(*tunnel) {},
		"holding":         func(tun *tunnel) { tun.send(noise[:7]) },
		"parked":          func(tun *tunnel) { tun.body.Park() },
		"parked, keeping": func(tun *tunnel) { tun.body.Park(); tun.send(noise, noise2[:5]) },
		"severed":         cutHow["after the news"],
		"asking":          func(tun *tunnel) { _ = tun.app.Close() },
		"waking": func(tun *tunnel) {
			tun.wake = func() error { time.Sleep(time.Minute); return nil }
			tun.body.Park()
			tun.send(key)
		},
	}
	for name, enter := range states {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				alive := func() stream.KeepAlive { return stream.KeepAlive{Ping: "2", Pong: "3", Every: time.Hour} }
				tun := dig(t, stream.Options{OnUpstreamEnd: paused, KeepAlive: alive})
				enter(tun)
				synctest.Wait()
				tun.body.CloseWith(1001, "the proxy is shutting down")
				tun.wantAtClient("closed", closing(1001, "the proxy is shutting down"))
				_ = tun.client.Close()
				<-tun.ended

				tun = dig(t, stream.Options{OnUpstreamEnd: paused, KeepAlive: alive})
				enter(tun)
				synctest.Wait()
				_ = tun.body.Close()
				_ = tun.client.Close()
				<-tun.ended
			})
		})
	}
}

func TestCloseWith_doesNotWaitForAClientForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var n counter
		upstream, _ := net.Pipe()
		proxy, client := net.Pipe()
		body := stream.NewBody(t.Context(), upstream, stream.Options{WebSocket: true, Count: n.count})
		ended := make(chan error)
		go func() {
			_, err := io.Copy(body, proxy)
			ended <- err
		}()
		body.CloseWith(1001, "")
		began := time.Now()
		if err := <-ended; err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		_ = client.Close()
	})
}
