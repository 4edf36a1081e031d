"""Public data sets as they are downloaded, one file each, and a site's own folders."""
