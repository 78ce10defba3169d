package config

import "github.com/spf13/pflag"

// AddFlags adds --config, which names the file, and the flags that set a key.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "configuration file: .yaml, .toml or .json (also "+EnvFile+")")
	flags.String("listen", "", "address for clients, host:port")
	flags.String("admin", "", "admin address for health, metrics and status, host:port or unix:///path")
	flags.String("cache-dir", "", "folder of the cache")
	flags.String("max-size", "", "maximum size of the cache on disk, such as 50GiB or 80%")
	flags.Bool("offline", false, "contact no upstream, and serve only what is cached")
	flags.String("log-level", "", "log level: debug, info, warn or error")
	flags.String("log-format", "", "log format: text or json")
}

// flagOf returns the flag that sets a key, or "".
func flagOf(path string) string {
	switch path {
	case "listen", "admin", "offline":
		return path
	case "cache.dir":
		return "cache-dir"
	case "cache.max_size":
		return "max-size"
	case "log.level":
		return "log-level"
	case "log.format":
		return "log-format"
	}
	return ""
}
