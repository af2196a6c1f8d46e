"""What devices are sent: objects, bundles, adapter versions and their handouts."""
