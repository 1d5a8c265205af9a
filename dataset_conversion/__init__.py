"""Converters of echocardiography datasets to nnU-Net's raw format. No torch is needed here."""
