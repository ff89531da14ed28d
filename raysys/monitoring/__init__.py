"""What reads our metrics: scrape config, rules and dashboards, generated for a laptop and for a cluster alike."""
