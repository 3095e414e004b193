"""One file per step. Each can be repeated (``if_not_exists``): MySQL commits every DDL statement by itself."""
