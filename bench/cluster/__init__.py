"""The program on its real servers, beside ceilings that are taken on the same servers in the same run."""
