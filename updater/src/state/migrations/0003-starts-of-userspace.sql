-- A soft reboot ends processes and mounts, and the boot id stays. NULL where it was not told.
ALTER TABLE events ADD COLUMN userspace TEXT;
