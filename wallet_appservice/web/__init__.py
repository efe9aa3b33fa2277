"""The wallet's HTTP API and widget page."""
