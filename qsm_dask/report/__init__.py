"""What people look at: pictures of scans, charts of cohorts, and the page that holds them."""
