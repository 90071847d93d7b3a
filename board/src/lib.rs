//! Displays around the fovea appliance.
