package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// appCommand makes this program the one that runs inside the sandboxes.
const appCommand = "app"

const (
	appPort   = 8080
	appMemory = 1 << 20
)

// appState is what the app answers. All of it is lost with the process.
type appState struct {
	Pid     int    `json:"pid"`
	Counter int    `json:"counter"` // counts the answers
	Memory  string `json:"memory"`  // checksum of random bytes made at start
	File    string `json:"file"`    // checksum of the same bytes, read from an open file
	Address string `json:"address"` // where it listens
}

// runApp serves the state on the sandbox's address.
func runApp() error {
	memory := make([]byte, appMemory)
	_, _ = rand.Read(memory) // never fails
	file, err := os.Create("bytes")
	if err != nil {
		return err
	}
	if _, err := file.Write(memory); err != nil {
		return err
	}
	var mu sync.Mutex
	counter := 0
	address := net.JoinHostPort(os.Getenv("SANDBOX_IP"), strconv.Itoa(appPort))
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == plainPath {
			_, _ = w.Write(memory[:1024])
			return
		}
		if r.URL.Path == framesPath {
			serveFrames(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		counter++
		kept := make([]byte, appMemory)
		_, _ = file.ReadAt(kept, 0) // the checksum tells
		_ = json.NewEncoder(w).Encode(appState{Pid: os.Getpid(), Counter: counter, Memory: checksum(memory), File: checksum(kept), Address: address})
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: time.Minute}
	return server.Serve(ln)
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
