"""What people look at: the page of a run, charts, pictures, videos."""
