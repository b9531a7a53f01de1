package envd

import (
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// metrics is E2B's /metrics: what the sandbox uses of what the machine has.
type metrics struct {
	Timestamp int64   `json:"ts"`
	CPUCount  int     `json:"cpu_count"`
	CPUUsed   float64 `json:"cpu_used_pct"`
	MemTotal  uint64  `json:"mem_total"`
	MemUsed   uint64  `json:"mem_used"`
	DiskUsed  uint64  `json:"disk_used"`
	DiskTotal uint64  `json:"disk_total"`
}

func (s *server) getMetrics(w http.ResponseWriter, _ *http.Request) {
	u, err := proctree.Measure(os.Getpid(), s.cfg.Home)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "reading the machine's tables")
		return
	}
	writeJSON(w, http.StatusOK, metrics{
		Timestamp: time.Now().Unix(),
		CPUCount:  runtime.NumCPU(),
		CPUUsed:   u.CPUPercent,
		MemTotal:  u.MemTotal,
		MemUsed:   u.MemUsed,
		DiskUsed:  u.DiskTotal - u.DiskFree,
		DiskTotal: u.DiskTotal,
	})
}
