"""The iApp generator: from a folder with code to an app that was tested, built, deployed and run."""
