"""What HTML pages and figures share: style, tables, forests, learning curves."""
